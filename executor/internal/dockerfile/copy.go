package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	mode "github.com/tonistiigi/dchapes-mode"

	"kaniko-build/schema/diag"
)

func (r *stageRun) doCopy(c *instructions.CopyCommand, cmd *command, step *Step) error {
	out := &Copy{Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Parents: c.Parents, Exclude: c.ExcludePatterns}
	if len(cmd.sources) > 0 {
		if !cmd.sources[0].done {
			return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", c.From, r.s.title)
		}
		out.From = r.g.source(cmd.sources[0])
	}
	return r.copy(out, c, c.SourcesAndDest, "", nil, step)
}

func (r *stageRun) doAdd(c *instructions.AddCommand, step *Step) error {
	out := &Copy{Add: true, Chown: c.Chown, Chmod: c.Chmod, Link: c.Link, Exclude: c.ExcludePatterns, Unpack: c.Unpack}
	return r.copy(out, c, c.SourcesAndDest, c.Checksum, c.KeepGitDir, step)
}

// copy checks flags and sorts the sources of COPY and ADD into kinds.
func (r *stageRun) copy(out *Copy, c instructions.Command, words instructions.SourcesAndDest, checksum string, keepGitDir *bool, step *Step) error {
	out.Dest = copyDest(r.s.dir, words.DestPath)
	if out.Link && namesOwner(out.Chown) {
		return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", out.Chown)
	}
	if err := checkChmod(out.Chmod); err != nil {
		return err
	}
	if err := r.lookedUp("--chown="+out.Chown, out.Chown); err != nil {
		return err
	}
	if checksum != "" {
		if len(words.SourcePaths) != 1 {
			return errors.New("checksum can't be specified for multiple sources")
		}
		if !isHTTP(words.SourcePaths[0]) && !isGit(words.SourcePaths[0]) {
			return errors.New("checksum requires HTTP(S) or Git sources")
		}
	}

	text := "COPY"
	if out.Add {
		text = "ADD"
	}
	if out.Parents {
		text += " --parents"
	}
	if out.Chown != "" {
		text += " --chown=" + out.Chown
	}
	if out.Chmod != "" {
		text += " --chmod=" + out.Chmod
	}
	places := r.g.f.sourcePlaces(step.Pos, c, words.SourcePaths)
	for i, src := range words.SourcePaths {
		text += " " + src
		remote, isRemote, err := remoteSource(src, &checksum, keepGitDir, out.Add)
		if err != nil {
			return err
		}
		if isRemote {
			remote.Before = len(out.Sources)
			out.Remote = append(out.Remote, remote)
			continue
		}
		if out.From.Kind == FromContext && out.From.Context == "" {
			r.g.f.lintIgnored(src, out.Add, c, r.lint)
		}
		out.Sources, out.Places = append(out.Sources, src), append(out.Places, places[i])
	}
	for _, h := range words.SourceContents {
		text += " <<" + h.Path
		name := path.Clean("/" + h.Path)
		if path.Dir(name) != "/" || name == "/" {
			return fmt.Errorf("heredoc %q is not the name of a file", h.Path)
		}
		out.Inline = append(out.Inline, InlineFile{Path: name[1:], Mode: 0o644, Data: []byte(h.Data)})
	}
	out.Link = out.Link && out.Chmod == ""

	step.Copy, step.Empty = out, false
	step.CreatedBy = text + " " + words.DestPath + " # buildkit"
	return nil
}

// sourcePlaces finds where the sources of an instruction at pos are written, in their
// order. Those that stand there otherwise, as variables do, are where the instruction is.
func (f *File) sourcePlaces(pos diag.Pos, c instructions.Command, sources []string) []diag.Pos {
	out := slices.Repeat([]diag.Pos{pos}, len(sources))
	if len(c.Location()) == 0 || pos.File != f.name || pos.Line != c.Location()[0].Start.Line {
		return out
	}
	line, end := pos.Line, min(c.Location()[len(c.Location())-1].End.Line, len(f.source))
	col := pos.Col - 1 + len(c.Name()) // where on the line to go on
	for i, src := range sources {
		for n, from := line, col; n <= end && src != ""; n, from = n+1, 0 {
			if at := wholeWord(f.source[n-1], from, src); at >= 0 {
				out[i].Line, out[i].Col = n, at+1
				line, col = n, at+len(src)
				break
			}
		}
	}
	return out
}

// wholeWord is where a word stands in a line by itself, bare or in quotes, from an
// offset on; -1 if it does not.
func wholeWord(line string, from int, word string) int {
	const ends = " \t\",[]"
	for from <= len(line) {
		i := strings.Index(line[min(from, len(line)):], word)
		if i < 0 {
			return -1
		}
		i += from
		end := i + len(word)
		if (i == 0 || strings.IndexByte(ends, line[i-1]) >= 0) && (end == len(line) || strings.IndexByte(ends+"\\`\r", line[end]) >= 0) {
			return i
		}
		from = i + 1
	}
	return -1
}

// copyDest is a destination seen from the working directory. That it names a
// directory, by "/" or "/." at its end, is kept.
func copyDest(dir, dest string) string {
	if dest == "" || dest == "." {
		dest = "./"
	}
	p := path.Clean(joinDir(dir, dest))
	switch {
	case strings.HasSuffix(dest, "/") && !strings.HasSuffix(p, "/"):
		p += "/"
	case strings.HasSuffix(dest, "/."):
		p = strings.TrimSuffix(p, "/") + "/."
	}
	return p
}

// lookedUp refuses an owner with names where there is no file system that could
// have them: directly above scratch. One without the files is fine for BuildKit.
func (r *stageRun) lookedUp(what, owner string) error {
	if !r.s.bare || !namesOwner(owner) {
		return nil
	}
	return fmt.Errorf("%s: invalid user index -1: above scratch there are no files to look a name up in", what)
}

// namesOwner tells if an owner needs a passwd or group file.
func namesOwner(owner string) bool {
	user, group, _ := strings.Cut(owner, ":")
	return user != "" && !isID(user) || group != "" && !isID(group)
}

func isID(s string) bool {
	_, err := strconv.ParseInt(s, 10, 32)
	return err == nil || s == "root"
}

// checkChmod accepts octal and symbolic modes.
func checkChmod(chmod string) error {
	if chmod == "" {
		return nil
	}
	invalid := fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", chmod)
	if p, err := strconv.ParseUint(chmod, 8, 32); err == nil {
		if p > 0o7777 {
			return invalid
		}
		return nil
	}
	if _, err := mode.Parse(chmod); err != nil {
		var number *strconv.NumError
		if errors.As(err, &number) {
			return invalid
		}
		return fmt.Errorf("invalid chmod parameter: '%v': %w", chmod, err)
	}
	return nil
}

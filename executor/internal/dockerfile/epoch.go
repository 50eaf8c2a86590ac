package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"kaniko-build/schema/diag"
)

const epochArg = "SOURCE_DATE_EPOCH"

// setEpoch finds SOURCE_DATE_EPOCH: a build arg, else a global ARG with a value.
// It is a number, or says from where to take the time: "context", a named
// context, or a stage that is one remote ADD. Where there is no time to take,
// it counts as not set. ARGs then see the number.
func (f *File) setEpoch(shlex *shell.Lex) error {
	value, given := f.args[epochArg]
	pos := diag.Pos{}
	if !given {
		value, _ = f.globals.Get(epochArg)
		for _, n := range f.meta {
			if strings.Contains(n.Original, epochArg) {
				pos = f.instruction(n.StartLine)
			}
		}
	}
	if value == "" {
		if given {
			f.replaceEpoch("")
		}
		return nil
	}
	if sec, err := strconv.ParseInt(value, 10, 64); err == nil {
		f.epoch = &sec
	} else if f.epoch, err = f.epochFrom(value, pos, shlex); err != nil {
		return err
	}
	if f.epoch == nil {
		f.replaceEpoch("")
	} else {
		f.replaceEpoch(strconv.FormatInt(*f.epoch, 10))
	}
	return nil
}

func (f *File) replaceEpoch(value string) {
	if _, ok := f.args[epochArg]; ok {
		f.args[epochArg] = value
		if value == "" {
			delete(f.args, epochArg)
		}
	}
	if _, ok := f.globals.Get(epochArg); ok {
		f.globals = f.globals.without(epochArg)
		if value != "" {
			f.globals = f.globals.set(epochArg, value)
		}
	}
}

// epochFrom takes the time from what value names.
func (f *File) epochFrom(value string, pos diag.Pos, shlex *shell.Lex) (*int64, error) {
	if value == "context" {
		return nil, nil // a directory has no time
	}
	if name, err := f.context(value, f.build); err == nil && name != "" {
		return nil, nil // likewise directories and images
	}
	for _, d := range f.decls {
		if d.from.Name == "" || !strings.EqualFold(d.from.Name, value) {
			continue
		}
		remote, err := f.epochSource(d, shlex)
		if err != nil {
			return nil, f.problem(f.instruction(d.node.StartLine), err)
		}
		if f.opts.RemoteEpoch == nil {
			return nil, nil
		}
		sec, err := f.opts.RemoteEpoch(remote)
		if err != nil {
			return nil, fmt.Errorf("time of stage %s for %s: %w", d.from.Name, epochArg, err)
		}
		return sec, nil
	}
	return nil, &diag.Problem{Pos: pos, What: fmt.Sprintf("invalid %s: %s", epochArg, value),
		Hint: `give seconds since 1970, "context", or the name of a stage that is FROM scratch with one remote ADD`}
}

// epochSource is the remote ADD of a stage that is nothing else.
func (f *File) epochSource(d decl, shlex *shell.Lex) (Remote, error) {
	env := f.globals.without(epochArg)
	base, _, err := shlex.ProcessWord(d.from.BaseName, env)
	if err != nil {
		return Remote{}, fmt.Errorf("failed to process source stage base name %q: %w", d.from.BaseName, err)
	}
	if base != scratch {
		return Remote{}, fmt.Errorf("%s stage must use FROM scratch", epochArg)
	}
	var found *Remote
	for _, n := range d.nodes {
		cmd, err := parseNode(n)
		if err != nil {
			return Remote{}, err
		}
		switch c := cmd.(type) {
		case *instructions.ArgCommand:
			for _, a := range c.Args {
				if v, ok := f.args[a.Key]; ok {
					env = env.set(a.Key, v)
				} else if a.Value != nil {
					v, _, err := shlex.ProcessWord(*a.Value, env)
					if err != nil {
						return Remote{}, err
					}
					env = env.set(a.Key, v)
				}
			}
		case *instructions.AddCommand:
			if found != nil {
				return Remote{}, fmt.Errorf("%s stage must contain exactly one remote ADD", epochArg)
			}
			if len(c.SourceContents) != 0 || len(c.SourcePaths) != 1 {
				return Remote{}, fmt.Errorf("%s stage must contain exactly one remote ADD source", epochArg)
			}
			src, _, err := shlex.ProcessWord(c.SourcePaths[0], env)
			if err != nil {
				return Remote{}, err
			}
			checksum, _, err := shlex.ProcessWord(c.Checksum, env)
			if err != nil {
				return Remote{}, err
			}
			r, isRemote, err := remoteSource(src, &checksum, c.KeepGitDir, true)
			if err != nil {
				return Remote{}, err
			}
			if !isRemote {
				return Remote{}, fmt.Errorf("%s stage source must be a single HTTP(S) or Git ADD", epochArg)
			}
			found = &r
		default:
			return Remote{}, fmt.Errorf("%s stage does not meet source-only requirements: unsupported %s instruction", epochArg, n.Value)
		}
	}
	if found == nil {
		return Remote{}, fmt.Errorf("%s stage must contain exactly one remote ADD", epochArg)
	}
	return *found, nil
}

// time is the creation time that history records of ours get.
func (f *File) time() *time.Time {
	if f.epoch == nil {
		return nil
	}
	t := time.Unix(*f.epoch, 0).UTC()
	return &t
}

// foldedArg is the value of a build arg whose name is given in any case.
func foldedArg(args map[string]string, lower string) string {
	v := ""
	for _, k := range slices.Sorted(maps.Keys(args)) {
		if strings.EqualFold(k, lower) {
			v = args[k]
		}
	}
	return v
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
	"kaniko-build/watch"
)

// ruleOf is the first rule of a target that matches a path, and the path as the rule
// sees it, from the context; nil is none.
func (s *site) ruleOf(id graph.ID, p string) (*schema.WatchRule, string) {
	t := s.p.Node(id).Target
	rel, err := filepath.Rel(filepath.Join(s.top, t.Context), p)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, ""
	}
	rel = filepath.ToSlash(rel)
	for i := range t.Rules {
		if matchesInputs(t.Rules[i].Paths, rel) {
			return &t.Rules[i], rel
		}
	}
	return nil, ""
}

// Rule is that of watch.Site.
func (s *site) Rule(id graph.ID, p string) watch.Action {
	rule, _ := s.ruleOf(id, p)
	switch {
	case rule == nil, rule.Action == "rebuild":
		return watch.Build
	case rule.Action == "none":
		return watch.Nought
	}
	return watch.Copy
}

// Sync is that of watch.Site.
func (s *site) Sync(ctx context.Context, id graph.ID, paths []string) error {
	files := map[*schema.WatchRule][]syncFile{}
	var order []*schema.WatchRule
	for _, p := range paths {
		rule, rel := s.ruleOf(id, p)
		if rule == nil {
			continue
		}
		if files[rule] == nil {
			order = append(order, rule)
		}
		files[rule] = append(files[rule], syncFile{p, inRule(rule.Paths, rel)})
	}
	for _, rule := range order {
		put := syncFiles
		if rule.Via == "" {
			run := s.shop.stage.service
			if own, err := run.node(s.p); err != nil || own != id {
				continue // of another platform: the process has them by its own node
			}
			put = run.update
		}
		if err := put(ctx, rule, files[rule]); err != nil {
			return err
		}
	}
	return nil
}

// syncFile is a file that is copied: where it lies, and its name below the rule's to.
type syncFile struct{ at, name string }

// inRule is a path without the part of the pattern that it matches which has no
// wildcard: src/a.js of src/** is a.js.
func inRule(patterns []string, rel string) string {
	for _, p := range patterns {
		if strings.HasPrefix(p, "!") || !schema.Glob(p)(rel) {
			continue
		}
		for strings.ContainsAny(p, "*?") {
			p = path.Dir(p)
		}
		if p == "." {
			return rel
		}
		if rest, ok := strings.CutPrefix(rel, p+"/"); ok {
			return rest
		}
	}
	return path.Base(rel)
}

// within is the command line that runs words where an image runs.
func within(via string, words ...string) []string {
	kind, name, _ := strings.Cut(via, ":")
	switch kind {
	case "kubectl":
		return append([]string{"kubectl", "exec", "-i", name, "--"}, words...)
	case "compose":
		return append([]string{"docker", "compose", "exec", "-T", name}, words...)
	}
	return append([]string{"docker", "exec", "-i", name}, words...)
}

// syncFiles copies files to where a rule says, removes those that are gone, and runs
// the command of the rule.
func syncFiles(ctx context.Context, rule *schema.WatchRule, files []syncFile) error {
	archive, gone, err := packFiles(files, 1<<40)
	if err != nil {
		return err
	}
	script := append([]string{"sh", "-ec", `mkdir -p "$0"; cd "$0"; if [ $# -gt 0 ]; then rm -rf -- "$@"; fi; tar -xf -`, rule.To}, gone...)
	if err := runWithin(ctx, within(rule.Via, script...), archive); err != nil {
		return err
	}
	if words := wordsOf(rule.Exec); words != nil {
		return runWithin(ctx, within(rule.Via, words...), nil)
	}
	return nil
}

// wordsOf is a command as words; nil is none.
func wordsOf(c schema.Command) []string {
	switch {
	case !isCommand(c):
		return nil
	case c.Words == nil:
		return []string{"sh", "-c", c.Line}
	}
	return c.Words
}

// packFiles makes an archive of files, in which each is of most bytes at most; gone are
// the names of those that are not there.
func packFiles(files []syncFile, most int64) (archive *bytes.Buffer, gone []string, err error) {
	archive = &bytes.Buffer{}
	w := tar.NewWriter(archive)
	for _, f := range files {
		fi, err := os.Lstat(f.at)
		if errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, f.name)
			continue
		}
		if err == nil {
			err = pack(w, f, fi, most)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("pack %s: %w", f.at, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, nil, fmt.Errorf("pack files: %w", err)
	}
	return archive, gone, nil
}

// pack adds a file or a directory with what is in it.
func pack(w *tar.Writer, f syncFile, fi fs.FileInfo, most int64) error {
	if fi.IsDir() {
		list, err := os.ReadDir(f.at)
		if err != nil {
			return err
		}
		for _, e := range list {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if err := pack(w, syncFile{filepath.Join(f.at, e.Name()), path.Join(f.name, e.Name())}, info, most); err != nil {
				return err
			}
		}
		return nil
	}
	link := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(f.at); err != nil {
			return err
		}
	} else if !fi.Mode().IsRegular() {
		return nil
	} else if fi.Size() > most {
		return fmt.Errorf("it has %d MiB, and at most %d are copied at once", fi.Size()>>20, most>>20)
	}
	text := []byte(nil)
	if link == "" {
		var err error
		if text, err = os.ReadFile(f.at); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	h.Name, h.Size, h.Uid, h.Gid, h.Uname, h.Gname = f.name, int64(len(text)), 0, 0, "", ""
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// runWithin runs a command, whose words are its error.
func runWithin(ctx context.Context, argv []string, in io.Reader) error {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stdin = in
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(len(argv), 4)], " "), err, oneLine(strings.TrimSpace(string(out))))
	}
	return nil
}

// syncable refuses rules that have no place to copy to. run is the target whose image
// runs, "" for none.
func syncable(p *plan.Plan, run string) error {
	var l diag.List
	for _, n := range p.Nodes {
		for _, r := range n.Target.Rules {
			if r.Action != "sync" || r.Via != "" || n.Index != nil || n.Target.Name == run {
				continue
			}
			l.Add(r.Pos, fmt.Sprintf("run it with --run %s, or write via: kubectl:WORKLOAD, docker:CONTAINER or compose:SERVICE", n.Target.Name),
				"target %q: a rule that syncs does not say where the image runs", n.Target.Name)
		}
	}
	return l.Err()
}

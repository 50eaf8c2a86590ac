package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// hooks run the commands of targets on this machine.
type hooks struct {
	w     *workspace
	x     *executor.Executor
	sink  executor.Sink
	force bool // run also what has not changed
}

// hookResult is what a hook may know of the node that it belongs to.
type hookResult struct {
	status string // "", success or failure
	ref    string // repository@digest when it was pushed, else the first name
	digest string
	input  string // digest of what it is made of; "" if nobody knows it
}

// before runs the hooks before the build of each target, in the plan's order, each
// command once: what it makes is an input of builds, so it comes before any of them
// is looked at. It answers with what failed, by node; with keep the others still run.
func (h *hooks) before(ctx context.Context, p *plan.Plan, keep bool) (map[string]error, error) {
	return h.some(ctx, p, p.Order, func(schema.Hook) bool { return true }, keep)
}

// some is before for some nodes, and some of their hooks.
func (h *hooks) some(ctx context.Context, p *plan.Plan, ids []graph.ID, which func(schema.Hook) bool, keep bool) (map[string]error, error) {
	failed := map[string]error{}
	done := map[string]error{}
	for _, id := range ids {
		n := p.Node(id)
		for _, hook := range n.Target.Before {
			if !which(hook) {
				continue
			}
			key := h.key(hook)
			err, ran := done[key]
			if !ran {
				err = h.unlessUnchanged(ctx, string(id), n.Target, hook, key)
				done[key] = err
			}
			if err == nil {
				continue
			}
			if !keep || ctx.Err() != nil {
				return nil, err
			}
			failed[string(id)] = err
			break
		}
	}
	return failed, nil
}

// key tells hooks apart: by the workspace, the directory and the command.
func (h *hooks) key(hook schema.Hook) string {
	sum := sha256.New()
	for _, s := range slices.Concat([]string{h.w.root, hook.Dir, hook.Line}, hook.Words, []string{""}, hook.Inputs) {
		fmt.Fprintf(sum, "%d %s\n", len(s), s)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// unlessUnchanged runs a hook if one of its inputs has changed since it last
// succeeded, or if it names none.
func (h *hooks) unlessUnchanged(ctx context.Context, node string, t *schema.Target, hook schema.Hook, key string) error {
	var now string
	if len(hook.Inputs) > 0 {
		var err error
		if now, err = hashInputs(h.w.root, hook.Inputs); err != nil {
			return &diag.Problem{Pos: hook.Pos, What: fmt.Sprintf("target %q: inputs of a hook: %v", t.Name, err)}
		}
		if !h.force && h.x.Remembered("hook "+key) == now {
			h.log(node, title(hook.Command)+": its inputs are unchanged\n")
			return nil
		}
	}
	if err := h.run(ctx, node, t, hook, hookResult{}); err != nil {
		return err
	}
	if now == "" {
		return nil
	}
	return h.x.Remember("hook "+key, now)
}

// after runs the hooks after the build of a node, as far as they are for its outcome
// and its platform: those that name no platform run once for a target, for its index
// if it has several. All of them run; the errors come together.
func (h *hooks) after(ctx context.Context, n *plan.Node, res hookResult) error {
	var errs []error
	for _, hook := range n.Target.After {
		if res.status == skippedStatus && !hook.Always || res.status != skippedStatus && hook.When != schema.Always && string(hook.When) != res.status {
			continue
		}
		switch some := len(hook.Platforms) > 0; {
		case some && !slices.Contains(hook.Platforms, n.Platform):
			continue
		case !some && n.Joined && res.status != string(schema.OnFailure):
			continue // it runs for the index
		}
		errs = append(errs, h.run(ctx, string(n.ID), n.Target, hook, res))
	}
	return errors.Join(errs...)
}

const (
	hookTail  = 20              // lines of output that an error repeats
	hookGrace = 5 * time.Second // for what a killed hook leaves behind with its output open
)

// run runs one hook; its output goes to the log of the node.
func (h *hooks) run(ctx context.Context, node string, t *schema.Target, hook schema.Hook, res hookResult) error {
	facts := map[string]string{}
	if res.status != "" {
		facts["result.ref"], facts["result.digest"] = res.ref, res.digest
	}
	if res.input != "" {
		facts["input.digest"] = res.input
	}
	argv := []string{"sh", "-c", hook.Line}
	if hook.Words != nil {
		argv = slices.Clone(hook.Words)
	}
	for i, word := range argv {
		var err error
		if argv[i], err = schema.Expand(word, facts); err != nil {
			return &diag.Problem{Pos: hook.Pos, What: fmt.Sprintf("target %q: hook: %v", t.Name, err)}
		}
	}
	return h.exec(ctx, node, t.Name, hook.Command, argv, res)
}

// command runs a command that knows nothing but its environment.
func (h *hooks) command(ctx context.Context, node, target string, c schema.Command, res hookResult) error {
	argv := []string{"sh", "-c", c.Line}
	if c.Words != nil {
		argv = c.Words
	}
	return h.exec(ctx, node, target, c, argv, res)
}

// exec runs the words of a command.
func (h *hooks) exec(ctx context.Context, node, target string, cmd schema.Command, argv []string, res hookResult) error {
	h.log(node, title(cmd)+"\n")
	out := &hookOutput{log: func(lines string) { h.log(node, lines) }}
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Dir, c.Stdout, c.Stderr = h.w.path(cmd.Dir), out, out
	c.Env = append(os.Environ(), "KANIKO_BUILD_TARGET="+target, "KANIKO_BUILD_REF="+res.ref, "KANIKO_BUILD_DIGEST="+res.digest, "KANIKO_BUILD_STATUS="+res.status)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that what it started ends with it
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = hookGrace
	err := c.Run()
	out.flush()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	what := fmt.Sprintf("target %q: hook %s: %v", target, title(cmd), err)
	for _, l := range out.tail {
		what += "\n  | " + printable(l)
	}
	return &hookError{&diag.Problem{Pos: cmd.Pos, What: what}}
}

// hookError is a hook that failed: work that went wrong, no wrong input.
type hookError struct{ problem *diag.Problem }

func (e *hookError) Error() string { return e.problem.Error() }

func (h *hooks) log(node, lines string) {
	h.sink(executor.Event{Node: node, Kind: executor.Log, Time: time.Now(), Stage: "hook", Data: lines})
}

// title is a command for people, on one line.
func title(c schema.Command) string {
	text := c.Line
	if c.Words != nil {
		text = strings.Join(c.Words, " ")
	}
	return oneLine(text)
}

// hookOutput passes whole lines on and keeps the last ones.
type hookOutput struct {
	log  func(lines string)
	rest []byte
	tail []string
}

func (o *hookOutput) Write(b []byte) (int, error) {
	o.rest = append(o.rest, b...)
	end := bytes.LastIndexByte(o.rest, '\n') + 1
	if end == 0 && len(o.rest) < 64<<10 {
		return len(b), nil
	}
	if end == 0 {
		end = len(o.rest)
	}
	o.take(string(o.rest[:end]))
	o.rest = append([]byte(nil), o.rest[end:]...)
	return len(b), nil
}

func (o *hookOutput) flush() {
	if len(o.rest) > 0 {
		o.take(string(o.rest) + "\n")
		o.rest = nil
	}
}

func (o *hookOutput) take(lines string) {
	o.log(lines)
	o.tail = append(o.tail, strings.Split(strings.TrimSuffix(lines, "\n"), "\n")...)
	if extra := len(o.tail) - hookTail; extra > 0 {
		o.tail = slices.Delete(o.tail, 0, extra)
	}
}

// hashInputs hashes the names, kinds and contents of the files below root that
// match one of the patterns and none of those with a "!".
func hashInputs(root string, patterns []string) (string, error) {
	var yes, no []func(string) bool
	tops := map[string]bool{}
	for _, p := range patterns {
		if rest, not := strings.CutPrefix(p, "!"); not {
			no = append(no, schema.Glob(rest))
			continue
		}
		yes = append(yes, schema.Glob(p))
		top := p
		for strings.ContainsAny(top, "*?") {
			top = path.Dir(top)
		}
		tops[top] = true
	}
	matches := func(list []func(string) bool, name string) bool {
		return slices.ContainsFunc(list, func(f func(string) bool) bool { return f(name) })
	}
	sums := map[string]string{}
	for top := range tops {
		err := filepath.WalkDir(filepath.Join(root, top), func(file string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			switch {
			case d.IsDir() && d.Name() == ".git":
				return filepath.SkipDir
			case d.IsDir(), !matches(yes, rel), matches(no, rel):
				return nil
			}
			sums[rel], err = hashFile(file, d)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	sum := sha256.New()
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(sum, "%d %s %s\n", len(name), name, sums[name])
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func hashFile(file string, d fs.DirEntry) (string, error) {
	if d.Type()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(file)
		return "link " + target, err
	}
	if !d.Type().IsRegular() {
		return d.Type().String(), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v %x", fi.Mode().Perm()&0o111 != 0, sum.Sum(nil)), nil
}

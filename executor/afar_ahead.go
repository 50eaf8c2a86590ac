package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/executor/internal/wire"
)

// afarAhead sends what the steps of the job will read of contexts and of what ADD
// fetches: the answers to the very calls that the core will make, and the files. A call
// that takes some ms each would be minutes for a large context. What is wrong is left
// out: the core will ask, and be told.
func (s *server) afarAhead(w http.ResponseWriter, r *http.Request) {
	a := &ahead{s: s, w: w, told: map[string]bool{}}
	for i := range s.job.Stages {
		st := &s.job.Stages[i]
		for k := range st.Steps {
			if step := &st.Steps[k]; step.Outside == nil {
				a.step(r.Context(), st, step)
			}
		}
	}
	if a.err != nil {
		panic(http.ErrAbortHandler) // half a file may have gone
	}
}

// ahead notes what is read, and sends it.
type ahead struct {
	s    *server
	w    io.Writer
	told map[string]bool
	err  error // of w, or of a file that was cut short
}

func (a *ahead) step(ctx context.Context, st *jobStage, s *jobStep) {
	if c := s.Copy; c != nil {
		if c.From.Kind == dockerfile.FromContext && len(c.Sources) > 0 {
			a.selection(ctx, contextTree(c.From.Context), selection(c))
		}
		for i, r := range c.Remote {
			sel := copier.Select{Patterns: []string{"/"}, Exclude: c.Exclude, Literal: true}
			if r.Git == nil {
				sel = copier.Select{Patterns: []string{r.Name}, Literal: true}
			}
			a.selection(ctx, remoteTreeName(st.Title, s.Number, i), sel)
		}
	}
	if s.Run == nil {
		return
	}
	for i := range s.Run.Mounts {
		m := &s.Run.Mounts[i]
		if m.Type != dockerfile.MountBind && m.Type != dockerfile.MountCache || m.From.Kind != dockerfile.FromContext {
			continue
		}
		name := contextTree(m.From.Context)
		if real, err := lookup(ctx, aheadTree{a, name}, m.Source); err == nil {
			a.selection(ctx, name, copier.Select{Patterns: []string{path.Join("/", real)}, Literal: true})
		}
	}
}

// selection reads what is selected in a tree, as the key of a step is made.
func (a *ahead) selection(ctx context.Context, name string, sel copier.Select) {
	t := aheadTree{a, name}
	items, err := copier.Find(ctx, t, sel)
	if err == nil {
		_, err = copier.KeyLines(ctx, t, items, true, func(ctx context.Context, _ tree.Tree, p string, _ tree.Entry) (string, error) {
			return "", t.send(ctx, p)
		})
	}
	_ = err // see afarAhead
}

// note sends the answer to a call, once.
func (a *ahead) note(method string, arg pathArg, reply any, err error) {
	if key := aheadKey(method, arg); !a.told[key] && a.err == nil {
		a.told[key] = true
		r := afarRead{Method: method, Arg: arg, Answer: afarAnswer{Err: wire.FaultOf(err)}}
		if err == nil {
			r.Answer.Reply, a.err = json.Marshal(reply)
		}
		a.err = errors.Join(a.err, writeFrame(a.w, r))
	}
}

// aheadTree is a tree of a node, as its core will see it, and sends what is read.
type aheadTree struct {
	*ahead
	name string
}

func (t aheadTree) call(ctx context.Context, method, name string) (reply any, file *os.File, err error) {
	if t.err != nil {
		return nil, nil, t.err
	}
	arg := pathArg{t.name, []byte(name)}
	raw, err := json.Marshal(arg)
	if err != nil {
		return nil, nil, err
	}
	reply, files, err := treeCall(ctx, t.s.node.sources, method, raw)
	if len(files) > 0 {
		file = files[0]
	}
	if method != callOpen {
		t.note(method, arg, reply, err)
	}
	return reply, file, err
}

func (t aheadTree) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	reply, _, err := t.call(ctx, callLstat, name)
	if err != nil {
		return tree.Entry{}, err
	}
	return reply.(plainEntry).entry(), nil
}

func (t aheadTree) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	reply, _, err := t.call(ctx, callReadDir, name)
	if err != nil {
		return nil, err
	}
	var out []tree.Entry
	for _, p := range reply.([]plainEntry) {
		out = append(out, p.entry())
	}
	return out, nil
}

func (t aheadTree) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	reply, _, err := t.call(ctx, callXattrs, name)
	if err != nil {
		return nil, err
	}
	return reply.(map[string][]byte), nil
}

// Open is for what is read to find out what is selected; nothing is.
func (t aheadTree) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	_, f, err := t.call(ctx, callOpen, name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// send sends the content of a file, once.
func (t aheadTree) send(ctx context.Context, name string) (err error) {
	arg := pathArg{t.name, []byte(name)}
	key := aheadKey(callOpen, arg)
	if t.told[key] {
		return nil
	}
	_, f, err := t.call(ctx, callOpen, name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	t.told[key] = true
	r := afarRead{Method: callOpen, Arg: arg, Size: fi.Size(), Answer: afarAnswer{Files: 1}}
	if t.ahead.err = writeFrame(t.w, r); t.ahead.err == nil {
		_, t.ahead.err = io.CopyN(t.w, f, fi.Size())
	}
	return t.ahead.err
}

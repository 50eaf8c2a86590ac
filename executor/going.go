package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"

	"kaniko-build/executor/internal/copier"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/wire"
)

// Process is a process that Start started. It may be used from many goroutines, and
// after its end.
type Process struct{ conn *wire.Conn }

// ErrProcessEnded says that a process has ended, so that nothing can be done in it.
var ErrProcessEnded = errors.New("the process has ended")

// MaxSync bounds an Update, in bytes of its archive.
const MaxSync = 64 << 20

// Update is a change of the files of a process, and a command after it.
type Update struct {
	To    string   // directory in its root; relative is from the image's working directory
	Files []byte   // a tar archive of files and links, not compressed
	Gone  []string // names below To that are removed
	Exec  []string // nil is none
}

// The call that the host makes.
const callUpdate = "update"

// updateArg is an Update whose names survive JSON.
type updateArg struct {
	To, Files  []byte
	Gone, Exec [][]byte
}

func asBytes(list []string) [][]byte {
	var out [][]byte
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}

func asStrings(list [][]byte) []string {
	var out []string
	for _, b := range list {
		out = append(out, string(b))
	}
	return out
}

// Update changes files in the root of the process, as root, and then runs a command
// beside it, with its user, environment and directory and no more rights. It waits for the
// process to begin. What the command prints is an event of the process.
func (p *Process) Update(ctx context.Context, u Update) error {
	if len(u.Files) > MaxSync {
		return fmt.Errorf("%d MiB of files changed, and at most %d are copied at once", len(u.Files)>>20, MaxSync>>20)
	}
	_, err := p.conn.Call(ctx, callUpdate, updateArg{[]byte(u.To), u.Files, asBytes(u.Gone), asBytes(u.Exec)}, nil)
	if errors.Is(err, wire.ErrClosed) {
		return ErrProcessEnded
	}
	return err
}

// going is the process of a core whose RUN goes on, for calls from outside.
type going struct {
	begun, over chan struct{}

	mu      sync.Mutex
	process *sandbox.Process // once begun is closed
	dir     string
	emit    func(string) // what a command prints
}

func newGoing() *going { return &going{begun: make(chan struct{}), over: make(chan struct{})} }

// begin tells that the process runs.
func (g *going) begin(p *sandbox.Process, dir string, emit func(string)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.process == nil {
		close(g.begun)
	}
	g.process, g.dir, g.emit = p, dir, emit
}

// end tells that it never will, or has ended.
func (g *going) end() { close(g.over) }

// handle answers calls of the host.
func (g *going) handle(ctx context.Context, method string, raw json.RawMessage) (any, []*os.File, error) {
	if method != callUpdate {
		return nil, nil, fmt.Errorf("internal error: the core is asked for %q", method)
	}
	var a updateArg
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, nil, err
	}
	select {
	case <-g.begun:
	case <-g.over:
		return nil, nil, ErrProcessEnded
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	return nil, nil, g.update(ctx, a)
}

func (g *going) update(ctx context.Context, a updateArg) error {
	g.mu.Lock()
	process, dir, emit := g.process, g.dir, g.emit
	g.mu.Unlock()
	to := string(a.To)
	if !path.IsAbs(to) {
		to = path.Join("/", dir, to)
	}
	err := process.Use(func(root *os.File) error {
		return copier.Update(ctx, root, to, bytes.NewReader(a.Files), asStrings(a.Gone))
	})
	if err != nil || len(a.Exec) == 0 {
		return err
	}
	out := &lines{emit: emit}
	argv := asStrings(a.Exec)
	res, err := process.Run(ctx, argv, out)
	out.flush()
	switch {
	case err != nil:
		return err
	case res.Exit != 0:
		last := ""
		if n := len(out.tail); n > 0 {
			last = ": " + out.tail[n-1]
		}
		return fmt.Errorf("%w%s", &exitError{code: res.Exit, argv: argv}, last)
	}
	return nil
}

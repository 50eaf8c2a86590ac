package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/inplace"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/tree"
	"kaniko-build/executor/internal/wire"
)

// host is what the core asks of the world outside its container. Nothing in it
// hands over a credential; a secret comes only for the step that mounts it.
type host interface {
	// Tree is a context, or another source that was fetched for a step.
	Tree(name string) tree.Tree
	// Moved tells of files of contexts that have another change time, as they were moved
	// and came back.
	Moved(ctx context.Context, list []inplace.Moved) error
	// Blob streams a base layer as its registry has it. It ends with io.EOF
	// only when size and digest were right.
	Blob(ctx context.Context, l baseLayer) (io.ReadCloser, error)
	// Token waits for the right to execute a step.
	Token(ctx context.Context) (release func(), err error)
	// Secret is the value granted under id; ok is false when there is none.
	Secret(ctx context.Context, id string) (value []byte, ok bool, err error)
	// Agent connects to the ssh agent granted under id; nil when there is none.
	Agent(ctx context.Context, id string) (*os.File, error)
	// Cached asks the node's cache outside for a key; nil is a miss. It is called
	// for steps with Ask only.
	Cached(ctx context.Context, k store.Key) (*outsideLayer, error)
	// Keep offers what a step made to the node's cache outside. It does not wait.
	Keep(keptLayer)
	// Grown tells how far the blob of a layer of the image is. It does not wait.
	Grown(grown)
	// Event reports what happens.
	Event(Event)
}

// keptLayer is what a step made, with its blob in the store or in a cache.
type keptLayer struct {
	Key       store.Key // by definition
	ByContent store.Key
	Lines     []string    // that ByContent was made of; none if the cache has it
	Entry     store.Entry // without lines
	Blob      ocispec.Descriptor
	Params    store.Params
}

// The methods of the connection, asked by the core and answered outside.
const (
	callLstat   = "lstat"
	callReadDir = "readdir"
	callXattrs  = "xattrs"
	callOpen    = "open"
	callMoved   = "moved"
	callBlob    = "blob"
	callBlobEnd = "blob-end"
	callToken   = "token"
	callRelease = "release"
	callSecret  = "secret"
	callAgent   = "agent"
	callCached  = "cached"
	callKeep    = "keep"
	callGrown   = "grown"
	callEvent   = "event"
	callJob     = "job"
	callDone    = "done"
)

// pathArg names a file in a tree. Names are bytes: JSON strings would spoil
// those that are not UTF-8.
type pathArg struct {
	Tree string
	Path []byte
}

// plainEntry is a tree.Entry whose strings survive JSON.
type plainEntry struct {
	tree.Entry
	Name []byte
	Link []byte
}

func plain(e tree.Entry) plainEntry {
	p := plainEntry{Entry: e, Name: []byte(e.Name), Link: []byte(e.Link)}
	p.Entry.Name, p.Entry.Link = "", ""
	return p
}

func (p plainEntry) entry() tree.Entry {
	e := p.Entry
	e.Name, e.Link = string(p.Name), string(p.Link)
	return e
}

// remote is the host as the core inside a container sees it.
type remote struct {
	conn *wire.Conn
}

func (r *remote) Tree(name string) tree.Tree { return remoteTree{r.conn, name} }

func (r *remote) Moved(ctx context.Context, list []inplace.Moved) error {
	_, err := r.conn.Call(ctx, callMoved, list, nil)
	return err
}

func (r *remote) Event(e Event) {
	_ = r.conn.Notify(callEvent, e) // when nobody is there to hear it, the core is being ended
}

func (r *remote) Blob(ctx context.Context, l baseLayer) (io.ReadCloser, error) {
	var id uint64
	files, err := r.conn.Call(ctx, callBlob, l, &id)
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("internal error: blob came with %d files", len(files))
	}
	return &remoteBlob{ctx: ctx, conn: r.conn, id: id, f: files[0]}, nil
}

// remoteBlob reads a pipe and asks, at its end, whether all was well.
type remoteBlob struct {
	ctx  context.Context // that of the call that opened it
	conn *wire.Conn
	id   uint64
	f    *os.File
	done bool
}

func (b *remoteBlob) Read(p []byte) (int, error) {
	n, err := b.f.Read(p)
	if errors.Is(err, io.EOF) && !b.done {
		if _, bad := b.conn.Call(b.ctx, callBlobEnd, b.id, nil); bad != nil {
			return n, bad
		}
		b.done = true
	}
	return n, err
}

func (b *remoteBlob) Close() error { return b.f.Close() }

func (r *remote) Token(ctx context.Context) (func(), error) {
	if _, err := r.conn.Call(ctx, callToken, nil, nil); err != nil {
		return nil, err
	}
	return func() { _ = r.conn.Notify(callRelease, nil) }, nil
}

func (r *remote) Secret(ctx context.Context, id string) ([]byte, bool, error) {
	var v secretReply
	if _, err := r.conn.Call(ctx, callSecret, id, &v); err != nil {
		return nil, false, err
	}
	return v.Value, v.OK, nil
}

type secretReply struct {
	Value []byte
	OK    bool
}

func (r *remote) Agent(ctx context.Context, id string) (*os.File, error) {
	files, err := r.conn.Call(ctx, callAgent, id, nil)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	return files[0], nil
}

func (r *remote) Cached(ctx context.Context, k store.Key) (*outsideLayer, error) {
	var l *outsideLayer
	_, err := r.conn.Call(ctx, callCached, k, &l)
	return l, err
}

func (r *remote) Keep(l keptLayer) { _ = r.conn.Notify(callKeep, l) } // as with Event

func (r *remote) Grown(g grown) { _ = r.conn.Notify(callGrown, g) } // as with Event

// remoteTree is a tree on the other side of the connection. Files are opened
// there and handed over.
type remoteTree struct {
	conn *wire.Conn
	name string
}

func (t remoteTree) arg(p string) pathArg { return pathArg{t.name, []byte(p)} }

func (t remoteTree) Lstat(ctx context.Context, name string) (tree.Entry, error) {
	var p plainEntry
	_, err := t.conn.Call(ctx, callLstat, t.arg(name), &p)
	return p.entry(), err
}

func (t remoteTree) ReadDir(ctx context.Context, name string) ([]tree.Entry, error) {
	var list []plainEntry
	if _, err := t.conn.Call(ctx, callReadDir, t.arg(name), &list); err != nil {
		return nil, err
	}
	out := make([]tree.Entry, len(list))
	for i, p := range list {
		out[i] = p.entry()
	}
	return out, nil
}

func (t remoteTree) Xattrs(ctx context.Context, name string) (map[string][]byte, error) {
	var m map[string][]byte
	_, err := t.conn.Call(ctx, callXattrs, t.arg(name), &m)
	return m, err
}

func (t remoteTree) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	files, err := t.conn.Call(ctx, callOpen, t.arg(name), nil)
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		return nil, fmt.Errorf("internal error: open came with %d files", len(files))
	}
	return files[0], nil
}

// treeCall answers the calls of a remoteTree.
func treeCall(ctx context.Context, s *sources, method string, raw json.RawMessage) (any, []*os.File, error) {
	var a pathArg
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, nil, err
	}
	t, err := s.tree(ctx, a.Tree)
	if err != nil {
		return nil, nil, err
	}
	p := string(a.Path)
	switch method {
	case callLstat:
		e, err := t.Lstat(ctx, p)
		return plain(e), nil, err
	case callReadDir:
		list, err := t.ReadDir(ctx, p)
		out := make([]plainEntry, len(list))
		for i, e := range list {
			out[i] = plain(e)
		}
		return out, nil, err
	case callXattrs:
		m, err := t.Xattrs(ctx, p)
		return m, nil, err
	default:
		r, err := t.Open(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		f, err := asFile(r)
		if err != nil {
			return nil, nil, err
		}
		if r == io.ReadCloser(f) { // else it has no file behind it, as a socket
			if err := s.unchanged(ctx, a.Tree, p, f); err != nil {
				return nil, nil, errors.Join(err, f.Close())
			}
		}
		return nil, []*os.File{f}, nil
	}
}

// asFile gives a file to send: the reader itself, or memory with its content.
func asFile(r io.ReadCloser) (*os.File, error) {
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	defer r.Close()
	fd, err := unix.MemfdCreate("content", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory for a file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "content")
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Package wire carries calls, and open files, between the two ends of a unix
// socket: the process outside a node's container, which has the credentials,
// the context and the store, and the core inside, which has none of them.
//
//	inside                                   outside
//	Call("open", {context, path}) --frame--> handler
//	      *os.File <--frame + SCM_RIGHTS--   reply
//	Notify("event", …) ------------frame-->  handler, no reply
//	handler <--------------------- frame --  Call("update", …)
//
// A frame is a 4-byte length and as many bytes of JSON; files travel with the
// first byte of their frame. Calls may be made from many goroutines, and each
// is answered by a goroutine of its own; notifications are handled one by one
// in the order they were sent, before any later call. When the peer is gone,
// every waiting call ends with ErrClosed.
package wire

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed ends calls whose peer is gone.
var ErrClosed = errors.New("the other end of the node's connection is gone")

const (
	maxFrame = 256 << 20 // a Job with a large Dockerfile and many layers is far below
	maxFiles = 4         // per frame
)

// Handler answers one call or notification. The files it returns are sent and
// then closed. A reply may be nil.
type Handler func(ctx context.Context, method string, arg json.RawMessage) (reply any, files []*os.File, err error)

// Conn is one end. Run must be called once for anything to arrive.
type Conn struct {
	sock   *net.UnixConn
	handle Handler

	send sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan answer
	closed  bool
}

type answer struct {
	frame frame
	files []*os.File
}

type frame struct {
	ID     uint64          `json:"id,omitempty"` // 0 for a notification
	Method string          `json:"method,omitempty"`
	Cancel bool            `json:"cancel,omitempty"` // the caller no longer waits for ID
	Arg    json.RawMessage `json:"arg,omitempty"`
	Reply  json.RawMessage `json:"reply,omitempty"`
	Err    *Fault          `json:"err,omitempty"`
}

// Fault is the error of a handler on its way to the caller.
type Fault struct {
	Text  string `json:"text"`
	Errno int    `json:"errno,omitempty"`
}

// FaultOf makes a Fault of an error; of nil there is none.
func FaultOf(err error) *Fault {
	if err == nil {
		return nil
	}
	f := &Fault{Text: err.Error()}
	var errno unix.Errno
	var fault *Fault // which came from elsewhere itself
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	} else if errors.As(err, &fault) {
		f.Errno = fault.Errno
	} else if errors.Is(err, fs.ErrNotExist) {
		f.Errno = int(unix.ENOENT)
	}
	return f
}

func (e *Fault) Error() string { return e.Text }

// Is lets a missing file be a missing file on the other end too.
func (e *Fault) Is(target error) bool {
	if e.Errno == 0 {
		return false
	}
	if target == fs.ErrNotExist {
		return unix.Errno(e.Errno).Is(target)
	}
	return target == unix.Errno(e.Errno)
}

// Pair makes the two ends of a connection as files, for a process and its child.
func Pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "node"), os.NewFile(uintptr(fds[1]), "outside"), nil
}

// New takes over the socket f. handle may be nil when nothing is to be answered.
func New(f *os.File, handle Handler) (*Conn, error) {
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("use the node's socket: %w", err)
	}
	sock, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("the node's connection is not a unix socket")
	}
	return &Conn{sock: sock, handle: handle, waiting: map[uint64]chan answer{}}, nil
}

// Close ends the connection; Run returns.
func (c *Conn) Close() error { return c.sock.Close() }

// Call asks the other end and waits. reply, if not nil, is decoded into; the
// files that came are the caller's to close. When ctx ends first the call
// returns its cause and the other end's handler is cancelled.
func (c *Conn) Call(ctx context.Context, method string, arg, reply any) ([]*os.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	b, err := json.Marshal(arg)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", method, err)
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.next++
	id := c.next
	c.waiting[id] = ch
	c.mu.Unlock()
	if err := c.write(frame{ID: id, Method: method, Arg: b}, nil); err != nil {
		c.forget(id)
		return nil, err
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return nil, ErrClosed
		}
		if a.frame.Err != nil {
			return a.files, a.frame.Err
		}
		if reply != nil {
			if err := json.Unmarshal(a.frame.Reply, reply); err != nil {
				return a.files, fmt.Errorf("decode the answer to %s: %w", method, err)
			}
		}
		return a.files, nil
	case <-ctx.Done():
		if c.forget(id) {
			_ = c.write(frame{ID: id, Cancel: true}, nil) // it may be gone: then nobody works on it
		} else if a, ok := <-ch; ok {
			closeAll(a.files)
		}
		return nil, context.Cause(ctx)
	}
}

// Notify tells the other end without waiting for an answer.
func (c *Conn) Notify(method string, arg any) error {
	b, err := json.Marshal(arg)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	return c.write(frame{Method: method, Arg: b}, nil)
}

func (c *Conn) forget(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.waiting[id]
	delete(c.waiting, id)
	return ok
}

func (c *Conn) write(f frame, files []*os.File) error {
	body, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	buf := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(buf, uint32(len(body)))
	buf = append(buf, body...)
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	c.send.Lock()
	defer c.send.Unlock()
	n, _, err := c.sock.WriteMsgUnix(buf, oob, nil)
	if err == nil && n < len(buf) {
		_, err = c.sock.Write(buf[n:])
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrClosed, err)
	}
	return nil
}

// Run reads until the connection ends or ctx does. Handlers get a context that
// ends with Run; Run waits for them. A connection closed by the other end is
// no error.
func (c *Conn) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { c.sock.Close() })
	var handlers sync.WaitGroup
	defer func() {
		stop()
		cancel(ErrClosed)
		c.sock.Close()
		c.mu.Lock()
		c.closed = true
		for id, ch := range c.waiting {
			delete(c.waiting, id)
			close(ch)
		}
		c.mu.Unlock()
		handlers.Wait()
	}()
	var mu sync.Mutex
	running := map[uint64]context.CancelFunc{}
	for {
		f, files, err := c.read()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
				return context.Cause(ctx)
			}
			return err
		}
		switch {
		case f.Cancel:
			mu.Lock()
			if stop := running[f.ID]; stop != nil {
				stop()
			}
			mu.Unlock()
		case f.Method == "":
			c.deliver(f, files)
		case c.handle == nil:
			closeAll(files)
		case f.ID == 0:
			closeAll(files)
			_, out, _ := c.handle(ctx, f.Method, f.Arg) // nobody waits for the error of a notification
			closeAll(out)
		default:
			closeAll(files)
			hctx, stop := context.WithCancel(ctx)
			mu.Lock()
			running[f.ID] = stop
			mu.Unlock()
			handlers.Go(func() {
				c.answer(hctx, f)
				stop()
				mu.Lock()
				delete(running, f.ID)
				mu.Unlock()
			})
		}
	}
}

func (c *Conn) deliver(f frame, files []*os.File) {
	c.mu.Lock()
	ch, ok := c.waiting[f.ID]
	delete(c.waiting, f.ID)
	c.mu.Unlock()
	if !ok {
		closeAll(files)
		return
	}
	ch <- answer{f, files} // has room for one
}

func (c *Conn) answer(ctx context.Context, f frame) {
	reply, files, err := c.handle(ctx, f.Method, f.Arg)
	defer closeAll(files)
	out := frame{ID: f.ID}
	if err == nil && reply != nil {
		out.Reply, err = json.Marshal(reply)
	}
	out.Err = FaultOf(err)
	_ = c.write(out, files) // a peer that is gone needs no answer
}

func (c *Conn) read() (frame, []*os.File, error) {
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(head, oob)
	if err != nil {
		return frame{}, nil, err
	}
	if n == 0 {
		return frame{}, nil, io.EOF
	}
	files, err := received(oob[:oobn])
	if err != nil {
		return frame{}, nil, err
	}
	fail := func(err error) (frame, []*os.File, error) {
		closeAll(files)
		return frame{}, nil, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return fail(errors.New("a frame came with more files than are allowed"))
	}
	if _, err := io.ReadFull(c.sock, head[n:]); err != nil {
		return fail(err)
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxFrame {
		return fail(fmt.Errorf("a frame of %d bytes is more than is allowed", size))
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.sock, body); err != nil {
		return fail(err)
	}
	var f frame
	if err := json.Unmarshal(body, &f); err != nil {
		return fail(fmt.Errorf("decode a frame: %w", err))
	}
	return f, files, nil
}

func received(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read the files of a frame: %w", err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // no files in this one
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

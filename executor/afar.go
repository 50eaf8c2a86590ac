package executor

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/wire"
)

// A node afar is in a container of another machine, where neither the store nor the
// context is, nor a credential. Its core has a store of its own there, and asks for
// everything else over the one connection that there is to it:
//
//	core ── wire ── ServeAfar ═══ HTTP/2: calls, files, blobs ═══ serveAfar ── server
//	                    └ store of the container                     └ store
//
// A call is a POST, whose answer is a frame and, where wire hands over a file, the bytes
// of that. What the steps will copy of contexts is sent without being asked for. What
// the core made comes back as blobs, variants and keys before it says that it is done,
// so that the store knows it as if it had been made here.

// Afar is a Runner whose nodes are afar: Isolation.Afar of what it probes.
type Afar interface {
	Runner
	// StartAfar starts a container whose process calls ServeAfar, and returns the
	// connection to that. The container ends when the connection does. Its Wait says why
	// it ended; Kill ends it and gives it back.
	StartAfar(ctx context.Context, at Site) (net.Conn, Container, error)
}

// The requests that have no method of wire behind them.
const (
	afarNotes = "notes" // notifications, one frame each, in their order
	afarAhead = "ahead" // what will be read of contexts
	afarBlobs = "blobs"
	afarMade  = "made"
	afarEnded = "ended"
)

// afarTrailer says in a trailer why the bytes after a frame are not all.
const afarTrailer = "Error"

// afarJob is the answer to callJob: the job, and what its Runner is to know.
type afarJob struct {
	Job          job
	Keep, Ignore []string
	Arches       []string
}

// afarAnswer is the frame that a call is answered with.
type afarAnswer struct {
	Reply json.RawMessage `json:",omitempty"`
	Err   *wire.Fault     `json:",omitempty"`
	Files int             `json:",omitempty"` // 1: its bytes follow
}

// afarNote is a notification.
type afarNote struct {
	Method string
	Arg    json.RawMessage
}

// afarRead is what the core will ask of a tree: the answer to a call, or, of callOpen,
// Size bytes that follow.
type afarRead struct {
	Method string
	Arg    pathArg
	Answer afarAnswer
	Size   int64 `json:",omitempty"`
}

// afarResult is what the core made.
type afarResult struct {
	Variants []store.Variant // whose blobs were sent
	Keys     []afarKey
}

type afarKey struct {
	Key   store.Key
	Entry store.Entry
}

const maxAfarFrame = 256 << 20 // bytes, as in wire

// writeFrame writes v as JSON, with its length before it.
func writeFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// readFrame reads what writeFrame wrote; io.EOF is the end of frames.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxAfarFrame {
		return fmt.Errorf("a frame of %d bytes is more than is allowed", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("read a frame: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode a frame: %w", err)
	}
	return nil
}

// startAfar starts a node's container on another machine, serves it until its
// connection ends, and says why the container ended before its core was done.
func (x *Executor) startAfar(ctx context.Context, s *server, at Site) error {
	runner, ok := afarOf(x.opts.Runner)
	if !ok {
		return errors.New("internal error: this runner starts nothing afar")
	}
	conn, container, err := runner.StartAfar(ctx, at)
	if err != nil {
		return fmt.Errorf("start its container: %w", err)
	}
	s.site, s.afar = at, true
	stop := context.AfterFunc(ctx, func() {
		conn.Close() // it takes its container along
		container.Kill()
	})
	defer stop()
	s.serveAfar(ctx, conn)
	if len(s.done) > 0 {
		container.Kill()
		return nil
	}
	if ctx.Err() != nil {
		container.Kill()
		return context.Cause(ctx)
	}
	err = container.Wait()
	container.Kill()
	if s.ended != "" {
		err = errors.Join(errors.New(s.ended), err)
	}
	return err
}

// serveAfar answers a node over its connection until that ends.
func (s *server) serveAfar(ctx context.Context, conn net.Conn) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /call/{method}", s.afarCall)
	mux.HandleFunc("POST /"+afarNotes, s.afarNotes)
	mux.HandleFunc("POST /"+afarAhead, s.afarAhead)
	mux.HandleFunc("PUT /"+afarBlobs+"/{digest}", s.afarBlob)
	mux.HandleFunc("POST /"+afarMade, s.afarMade)
	mux.HandleFunc("POST /"+afarEnded, func(_ http.ResponseWriter, r *http.Request) {
		_ = readFrame(r.Body, &s.ended) // then the end of the container says why
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	srv.Protocols, srv.HTTP2 = afarHTTP()
	srv.HTTP2.MaxConcurrentStreams = 1000
	l := &oneConn{conn: make(chan net.Conn, 1), end: make(chan struct{})}
	watched := &closeTold{Conn: conn, closed: make(chan struct{})}
	l.conn <- watched
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }() // it ends when l is closed
	<-watched.closed
	_ = l.Close()
	<-served
	_ = srv.Close()
}

// afarHTTP is how both ends speak HTTP/2 over their one connection. What lies between
// often drops connections that are silent for a minute: such a one is asked before. A
// file goes in large frames, as each passes several processes.
func afarHTTP() (*http.Protocols, *http.HTTP2Config) {
	const frame, buffer = 256 << 10, 4<<20 - 1 // bytes
	plain := new(http.Protocols)
	plain.SetUnencryptedHTTP2(true)
	return plain, &http.HTTP2Config{MaxReadFrameSize: frame, MaxReceiveBufferPerConnection: buffer, MaxReceiveBufferPerStream: buffer, SendPingTimeout: 20 * time.Second}
}

// oneConn is a listener that somebody has come to already.
type oneConn struct {
	conn chan net.Conn
	once sync.Once
	end  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error { l.once.Do(func() { close(l.end) }); return nil }

func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "node", Net: "unix"} }

// closeTold is a connection that tells when it is closed.
type closeTold struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closeTold) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// afarCall answers one call of the core.
func (s *server) afarCall(w http.ResponseWriter, r *http.Request) {
	method := r.PathValue("method")
	var arg json.RawMessage
	err := readFrame(r.Body, &arg)
	if method == callAgent && err == nil {
		s.afarAgent(w, r, arg)
		return
	}
	var reply any
	var content io.ReadCloser
	switch {
	case err != nil:
	case method == callJob:
		reply = s.afarJob()
	case method == callBlob:
		var l baseLayer
		if err = json.Unmarshal(arg, &l); err == nil {
			content, err = s.openBlob(r.Context(), l)
		}
	default:
		reply, content, err = s.afarFile(r.Context(), method, arg)
	}
	a := afarAnswer{Err: wire.FaultOf(err)}
	if err == nil && reply != nil {
		if a.Reply, err = json.Marshal(reply); err != nil {
			a.Err = wire.FaultOf(err)
		}
	}
	if content != nil {
		defer content.Close()
		a.Files = 1
	}
	if writeFrame(w, a) != nil || content == nil {
		return
	}
	if _, err := io.Copy(w, content); err != nil {
		w.Header().Set(http.TrailerPrefix+afarTrailer, err.Error())
	}
}

// afarFile is handle with the one file that comes with a reply.
func (s *server) afarFile(ctx context.Context, method string, arg json.RawMessage) (any, io.ReadCloser, error) {
	reply, files, err := s.handle(ctx, method, arg)
	if len(files) > 0 {
		return reply, files[0], err
	}
	return reply, nil, err
}

func (s *server) afarJob() afarJob {
	j := s.job
	j.Ahead = false // nobody here sees a blob grow
	return afarJob{Job: j, Keep: s.site.Keep, Ignore: s.site.Ignore, Arches: s.site.Arches}
}

// afarNotes takes notifications one by one.
func (s *server) afarNotes(_ http.ResponseWriter, r *http.Request) {
	in := bufio.NewReader(r.Body)
	for {
		var n afarNote
		if readFrame(in, &n) != nil {
			return // the last one, or the connection has ended
		}
		_, _, _ = s.handle(r.Context(), n.Method, n.Arg) // nobody waits for the error
	}
}

// afarBlob takes a blob into the store, if it is the one that it should be.
func (s *server) afarBlob(w http.ResponseWriter, r *http.Request) {
	d, err := digest.Parse(r.PathValue("digest"))
	if err == nil {
		if _, ok := s.x.store.Has(d); !ok {
			err = s.takeBlob(d, r.Body)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
	}
}

func (s *server) takeBlob(d digest.Digest, r io.Reader) error {
	w, err := s.x.store.Writer()
	if err != nil {
		return err
	}
	if _, err = io.Copy(w, r); err == nil {
		_, err = w.Commit(d)
	}
	return errors.Join(err, w.Close())
}

// afarMade records what the core made. Blobs came before.
func (s *server) afarMade(w http.ResponseWriter, r *http.Request) {
	var m afarResult
	err := readFrame(r.Body, &m)
	for _, v := range m.Variants {
		if err == nil {
			err = s.x.store.PutVariant(v)
		}
	}
	for _, k := range m.Keys {
		if err == nil {
			err = s.x.store.PutKey(k.Key, k.Entry)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
	}
}

// afarAgent connects the two ends of a request to an ssh agent.
func (s *server) afarAgent(w http.ResponseWriter, r *http.Request, arg json.RawMessage) {
	var id string
	err := json.Unmarshal(arg, &id)
	var a afarAnswer
	var agent net.Conn
	if err == nil {
		f, err2 := s.node.agent(r.Context(), id)
		if err = err2; f != nil {
			agent, err = net.FileConn(f)
			f.Close()
		}
	}
	a.Err = wire.FaultOf(err)
	if agent != nil {
		a.Files = 1
		defer agent.Close()
	}
	both := http.NewResponseController(w)
	if writeFrame(w, a) != nil || both.Flush() != nil || agent == nil {
		return
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = io.Copy(agent, r.Body)
		agent.Close()
	}()
	_, _ = io.Copy(flushing{w, both}, agent)
	r.Body.Close()
	<-asked
}

// flushing sends what is written at once.
type flushing struct {
	w    io.Writer
	both *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.both.Flush()
	}
	return n, err
}

// knownAfar gives the steps of a job that the store knows their results, for a core
// that cannot look there. It changes the steps.
func (x *Executor) knownAfar(j *job) error {
	p, err := encodeParams(j.Encode, j.Epoch)
	if err != nil {
		return err
	}
	for i := range j.Stages {
		for k := range j.Stages[i].Steps {
			s := &j.Stages[i].Steps[k]
			if len(s.Lines) == 0 || s.Fresh {
				continue
			}
			s.Ask = true // by content, at least
			if s.ByContent {
				continue
			}
			if o := x.storedLayer(s.Key, p); o != nil {
				s.Outside, s.Asked = o, true
			}
		}
	}
	return nil
}

// storedLayer is what the store has for a key, as a cache would have it; nil if it has no
// blob of it. One in the encoding p is preferred.
func (x *Executor) storedLayer(k store.Key, p store.Params) *outsideLayer {
	e, err := x.store.GetKey(k, x.full())
	if err != nil || e.DiffID == "" {
		return nil
	}
	v, ok := x.store.GetVariant(e.DiffID, p)
	if !ok || v.Tar != "" {
		all := x.store.Variants(e.DiffID)
		if v, ok = plainOf(all); !ok {
			if v, ok = latest(all, p.Epoch); !ok {
				return nil
			}
			e.DiffID, v.Params.Epoch = v.Tar, nil // as core.settle does
		}
	}
	if x.isSpoiled(v.Descriptor.Digest) {
		return nil
	}
	e.Lines, e.ByContent, e.Layer = nil, nil, e.DiffID.Encoded()
	return &outsideLayer{Entry: e, Layer: baseLayer{DiffID: e.DiffID, Blob: v.Descriptor, Cached: true, Size: e.Size}, Params: v.Params}
}

// plainOf is an encoding of a layer as it is.
func plainOf(all []store.Variant) (store.Variant, bool) {
	for _, v := range all {
		if v.Tar == "" {
			return v, true
		}
	}
	return store.Variant{}, false
}

// latest is the encoding of a layer with times set to the latest, if that is not before
// epoch and there is one: with those set to epoch it is the same.
func latest(all []store.Variant, epoch *int64) (store.Variant, bool) {
	var late *store.Variant
	for i, v := range all {
		if v.Tar != "" && (late == nil || *v.Params.Epoch > *late.Params.Epoch) {
			late = &all[i]
		}
	}
	if late == nil || epoch == nil || *late.Params.Epoch < *epoch {
		return store.Variant{}, false
	}
	return *late, true
}

// cachedAfar answers callCached of a core that does not see the store.
func (s *server) cachedAfar(k store.Key) *outsideLayer {
	p, err := encodeParams(s.job.Encode, s.job.Epoch)
	if err != nil {
		return nil
	}
	return s.x.storedLayer(k, p)
}

// runs are the architectures that RUNs of the node have programs of.
func (n *Node) runs() []string {
	var out []string
	for _, st := range n.program.Stages {
		arch := st.Platform.Architecture
		if arch != "" && !slices.Contains(out, arch) && slices.ContainsFunc(st.Steps, func(s dockerfile.Step) bool { return s.Run != nil }) {
			out = append(out, arch)
		}
	}
	slices.Sort(out)
	return out
}

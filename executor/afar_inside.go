package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kaniko-build/executor/internal/emulator"
	"kaniko-build/executor/internal/store"
	"kaniko-build/executor/internal/wire"
)

// ServeAfar is the outer process of a node afar, in the node's container: it has r start
// the core there, isolated as iso says, with a store in dir, which it makes, and answers
// its calls by way of conn, which a Runner of the kind Afar serves at the other end. What
// goes wrong is told there too. It returns when the core has ended and conn may be closed.
//
// iso has all ids: what is made with a single one others could not use.
func ServeAfar(ctx context.Context, conn net.Conn, dir string, iso Isolation, r Runner) error {
	watched := &closeTold{Conn: conn, closed: make(chan struct{})}
	t := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return watched, nil }}
	t.Protocols, t.HTTP2 = afarHTTP()
	t.HTTP2.StrictMaxConcurrentRequests = true
	line, err := t.NewClientConn(ctx, "http", "outside:80")
	if err != nil {
		return fmt.Errorf("talk to who started this container: %w", err)
	}
	defer line.Close()
	in := &inside{line: line, gone: watched.closed, sent: map[digest.Digest]*sentBlob{}, ahead: map[string]afarAnswer{}, files: map[string]string{}, arrived: make(chan struct{})}
	err = in.serve(ctx, dir, iso, r)
	if err != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelGrace)
		defer cancel()
		if res, err2 := in.post(late, http.MethodPost, afarEnded, framed(err.Error())); err2 == nil {
			res.Body.Close()
		}
	}
	return err
}

// inside carries the calls of a core to the other machine.
type inside struct {
	line  *http.ClientConn
	gone  chan struct{} // closed when nobody is there any more, whom it is built for
	store *store.Store
	temp  string // for files

	notes   io.Writer // a request whose body goes on
	noted   chan error
	arrived chan struct{} // closed when all that was sent ahead is there

	mu      sync.Mutex
	sent    map[digest.Digest]*sentBlob
	ahead   map[string]afarAnswer // by call
	files   map[string]string     // content that was sent ahead, by call
	keeping sync.WaitGroup
	blobs   pipes
}

// sentBlob is a blob that went, or goes, to the store outside.
type sentBlob struct {
	once sync.Once
	err  error
}

func (in *inside) serve(ctx context.Context, dir string, iso Isolation, r Runner) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var o afarJob
	if _, err := in.call(ctx, callJob, nil, &o); err != nil {
		return fmt.Errorf("ask for the job: %w", err)
	}
	o.Job.Rung, o.Job.IDs, o.Job.Walk = iso.Rung, iso.IDs, iso.Walk // who made it could not know
	if in.store, err = store.Open(dir, storeOptions(iso)); err != nil {
		return err
	}
	temp, err := in.store.TempDir("ahead")
	if err != nil {
		return errors.Join(err, in.store.Close())
	}
	in.temp = temp.Path
	defer func() { err = errors.Join(err, temp.Remove(), in.store.Close()) }()
	var beside errgroup.Group
	beside.Go(func() error { in.readAhead(ctx); return nil })
	notes, w := io.Pipe()
	in.notes, in.noted = w, make(chan error, 1)
	go func() {
		res, err := in.post(ctx, http.MethodPost, afarNotes, notes)
		if err == nil {
			err = res.Body.Close()
		}
		notes.CloseWithError(err)
		in.noted <- err
	}()
	ours, theirs, err := wire.Pair()
	if err != nil {
		return err
	}
	c, err := wire.New(ours, func(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
		if method == callJob {
			return o.Job, nil, nil
		}
		return in.handle(ctx, method, arg)
	})
	if err != nil {
		theirs.Close()
		return err
	}
	var foreign []string
	for _, arch := range o.Arches {
		if !emulator.Native(runtime.GOARCH, arch) {
			foreign = append(foreign, arch)
		}
	}
	node, err := r.Start(ctx, iso, Site{Store: dir, Keep: o.Keep, Ignore: o.Ignore, Arches: foreign, Ends: os.Getpid() == 1}, theirs)
	if err != nil {
		return errors.Join(err, theirs.Close(), c.Close())
	}
	theirs.Close()
	ended := make(chan struct{})
	beside.Go(func() error {
		select {
		case <-in.gone:
			cancel()
		case <-ctx.Done():
		case <-ended:
			return nil
		}
		node.Kill()
		return nil
	})
	err = c.Run(context.WithoutCancel(ctx)) // until the core ends
	err = errors.Join(err, node.Wait())
	close(ended)
	cancel()
	in.blobs.stop()
	return errors.Join(err, beside.Wait())
}

// framed is a request's body of one frame.
func framed(v any) io.Reader {
	var b bytes.Buffer
	if err := writeFrame(&b, v); err != nil {
		return &failing{err}
	}
	return &b
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func (in *inside) post(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://outside/"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := in.line.RoundTrip(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w (%w)", wire.ErrClosed, err)
	}
	if res.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // what there is
		res.Body.Close()
		return nil, fmt.Errorf("who started this container answers %s: %s", strconv.Itoa(res.StatusCode), strings.TrimSpace(string(text)))
	}
	return res, nil
}

// call makes a call outside. content, if not nil, are the bytes that come with the reply.
func (in *inside) call(ctx context.Context, method string, arg, reply any) (content io.ReadCloser, err error) {
	return in.ask(ctx, method, framed(arg), reply)
}

// ask is call with the body of the request.
func (in *inside) ask(ctx context.Context, method string, body io.Reader, reply any) (content io.ReadCloser, err error) {
	res, err := in.post(ctx, http.MethodPost, "call/"+method, body)
	if err != nil {
		return nil, err
	}
	var a afarAnswer
	if err := readFrame(res.Body, &a); err != nil {
		return nil, errors.Join(err, res.Body.Close())
	}
	if a.Err == nil && reply != nil && a.Reply != nil {
		err = json.Unmarshal(a.Reply, reply)
	}
	if a.Err != nil {
		err = a.Err
	}
	if err != nil || a.Files == 0 {
		return nil, errors.Join(err, res.Body.Close())
	}
	return &trailed{res}, nil
}

// trailed is a body whose trailer says whether it is whole.
type trailed struct{ *http.Response }

func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.Body.Read(p)
	if errors.Is(err, io.EOF) {
		if text := t.Trailer.Get(afarTrailer); text != "" {
			err = errors.New(text)
		}
	}
	return n, err
}

func (t *trailed) Close() error { return t.Body.Close() }

// handle answers the core.
func (in *inside) handle(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
	switch method {
	case callEvent, callRelease:
		return nil, nil, in.note(afarNote{method, arg})
	case callGrown:
		return nil, nil, nil // of a blob that only is here
	case callKeep:
		var l keptLayer
		if err := json.Unmarshal(arg, &l); err != nil {
			return nil, nil, err
		}
		in.keeping.Go(func() {
			if _, here := in.store.Has(l.Blob.Digest); !here || in.send(ctx, l.Blob.Digest) == nil {
				_ = in.note(afarNote{method, arg}) // that it is not kept is no failure
			}
		})
		return nil, nil, nil
	case callDone:
		return nil, nil, in.done(ctx, arg)
	case callBlob:
		return in.blob(ctx, arg)
	case callBlobEnd:
		var id uint64
		if err := json.Unmarshal(arg, &id); err != nil {
			return nil, nil, err
		}
		return nil, nil, in.blobs.wait(ctx, id)
	case callAgent:
		return in.agent(ctx, arg)
	case callLstat, callReadDir, callXattrs, callOpen:
		return in.tree(ctx, method, arg)
	}
	var reply json.RawMessage
	content, err := in.call(ctx, method, arg, &reply)
	if content != nil {
		err = errors.Join(err, content.Close())
	}
	return reply, nil, err
}

func (in *inside) note(n afarNote) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return writeFrame(in.notes, n)
}

// done sends what the core made, and then that it is done.
func (in *inside) done(ctx context.Context, arg json.RawMessage) error {
	in.keeping.Wait()
	if err := in.sendMade(ctx); err != nil {
		return err
	}
	if err := in.notes.(*io.PipeWriter).Close(); err != nil {
		return err
	}
	if err := <-in.noted; err != nil {
		return err
	}
	content, err := in.call(ctx, callDone, arg, nil)
	if content != nil {
		err = errors.Join(err, content.Close())
	}
	return err
}

// sendMade sends every layer that has a blob here, with its keys.
func (in *inside) sendMade(ctx context.Context) error {
	var m afarResult
	seen := map[digest.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	keys, err := in.store.Keys()
	if err != nil {
		return err
	}
	for _, k := range keys {
		e, err := in.store.GetKey(k, true)
		if err != nil || e.DiffID == "" {
			continue // nothing that could be sent
		}
		variants := in.store.Variants(e.DiffID)
		if len(variants) == 0 {
			continue
		}
		m.Keys = append(m.Keys, afarKey{k, e})
		if seen[e.DiffID] {
			continue
		}
		seen[e.DiffID] = true
		for _, v := range variants {
			m.Variants = append(m.Variants, v)
			g.Go(func() error { return in.send(gctx, v.Descriptor.Digest) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	res, err := in.post(ctx, http.MethodPost, afarMade, framed(m))
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// send sends a blob of the store, once.
func (in *inside) send(ctx context.Context, d digest.Digest) error {
	in.mu.Lock()
	s := in.sent[d]
	if s == nil {
		s = &sentBlob{}
		in.sent[d] = s
	}
	in.mu.Unlock()
	s.once.Do(func() {
		f, _, err := in.store.File(d)
		if err != nil {
			s.err = err
			return
		}
		defer f.Close()
		res, err := in.post(ctx, http.MethodPut, afarBlobs+"/"+d.String(), f)
		if err == nil {
			err = res.Body.Close()
		}
		if err != nil {
			s.err = fmt.Errorf("send layer %s: %w", d, err)
		}
	})
	return s.err
}

// blob gives the core a pipe with the bytes of a layer. Whether they were all is asked at
// the end.
func (in *inside) blob(ctx context.Context, arg json.RawMessage) (any, []*os.File, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the call
	content, err := in.call(ctx, callBlob, arg, nil)
	if err != nil || content == nil {
		cancel()
		return nil, nil, err
	}
	id, f, err := in.blobs.open(content, cancel)
	if err != nil {
		return nil, nil, err
	}
	return id, []*os.File{f}, nil
}

// agent connects the core to an ssh agent outside.
func (in *inside) agent(ctx context.Context, arg json.RawMessage) (any, []*os.File, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	asks, w := io.Pipe()
	content, err := in.ask(ctx, callAgent, io.MultiReader(framed(arg), asks), nil)
	if err != nil || content == nil {
		cancel()
		w.Close()
		return nil, nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		cancel()
		return nil, nil, errors.Join(fmt.Errorf("make a socket for ssh: %w", err), content.Close(), w.Close())
	}
	ours := os.NewFile(uintptr(fds[0]), "agent")
	go func() {
		defer cancel()
		defer ours.Close()
		go func() { _, _ = io.Copy(w, ours); w.Close(); cancel() }() // it ends when the other end is closed
		_, _ = io.Copy(ours, content)
		content.Close()
	}()
	return nil, []*os.File{os.NewFile(uintptr(fds[1]), "agent")}, nil
}

// tree answers a question about a tree: by what was sent ahead, else from outside.
func (in *inside) tree(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
	var a pathArg
	if err := json.Unmarshal(arg, &a); err != nil {
		return nil, nil, err
	}
	key := aheadKey(method, a)
	for over := false; ; {
		in.mu.Lock()
		answer, ok := in.ahead[key]
		file := in.files[key]
		in.mu.Unlock()
		switch {
		case file != "":
			f, err := os.Open(file)
			if err != nil {
				return nil, nil, fmt.Errorf("open what came of the context: %w", err)
			}
			return nil, []*os.File{f}, nil
		case ok && answer.Err != nil:
			return nil, nil, answer.Err
		case ok:
			return answer.Reply, nil, nil
		case over:
			return in.askTree(ctx, method, arg)
		}
		select {
		case <-in.arrived:
			over = true
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

func (in *inside) askTree(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
	var reply json.RawMessage
	content, err := in.call(ctx, method, arg, &reply)
	if err != nil || content == nil {
		return reply, nil, err
	}
	f, err := in.file(content, -1)
	if err = errors.Join(err, content.Close()); err != nil {
		return nil, nil, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // its folder goes with the node
	_, err = f.Seek(0, io.SeekStart)
	return reply, []*os.File{f}, err
}

// file puts size bytes of r into a file; -1 is all.
func (in *inside) file(r io.Reader, size int64) (*os.File, error) {
	f, err := os.CreateTemp(in.temp, "")
	if err != nil {
		return nil, fmt.Errorf("make a file for the context: %w", err)
	}
	if size < 0 {
		_, err = io.Copy(f, r)
	} else {
		_, err = io.CopyN(f, r, size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the context: %w", err), f.Close())
	}
	return f, nil
}

func aheadKey(method string, a pathArg) string {
	return method + "\x00" + a.Tree + "\x00" + string(a.Path)
}

// readAhead takes what is sent of contexts without being asked for. Where it ends early
// the core's calls do the rest.
func (in *inside) readAhead(ctx context.Context) {
	defer close(in.arrived)
	res, err := in.post(ctx, http.MethodPost, afarAhead, nil)
	if err != nil {
		return
	}
	defer res.Body.Close()
	for {
		var r afarRead
		if readFrame(res.Body, &r) != nil {
			return
		}
		path := ""
		if r.Method == callOpen {
			f, err := in.file(res.Body, r.Size)
			if err != nil || f.Close() != nil {
				return
			}
			path = filepath.Clean(f.Name())
		}
		in.mu.Lock()
		if path != "" {
			in.files[aheadKey(r.Method, r.Arg)] = path
		} else {
			in.ahead[aheadKey(r.Method, r.Arg)] = r.Answer
		}
		in.mu.Unlock()
	}
}

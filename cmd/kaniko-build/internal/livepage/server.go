package livepage

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/report"
	"kaniko-build/graph"
)

//go:embed live.html
var document string

//go:embed live.css
var style string

//go:embed live.js
var script string

// Server serves a page on this machine. Serve makes one.
type Server struct {
	url   string
	page  *Page
	http  *http.Server
	fails chan error
	open  *streams
}

// Options of a server; the zero value has defaults.
type Options struct {
	Patience time.Duration // with a browser that does not take what it is sent; 0 is 10 s
	Browsers int           // streams at once; 0 is 64
}

// Serve begins to answer at an address, which has to be one of this machine (see
// Loopback). Close ends it.
func Serve(ctx context.Context, addr string, p *Page, o Options) (*Server, error) {
	if err := Loopback("address", addr); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for browsers: %w\n  hint: port 0 takes one that is free", err)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() { // localhost may be anything
		l.Close()
		return nil, fmt.Errorf("listen for browsers: %s is %s here, which is no loopback address\n  hint: write 127.0.0.1", addr, l.Addr())
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Browsers <= 0 {
		o.Browsers = 64
	}
	s := &Server{page: p, fails: make(chan error, 1), open: &streams{page: p, patience: o.Patience, most: o.Browsers}}
	g, err := newGuard(l.Addr(), s.routes())
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen for browsers: %w", err)
	}
	s.url = "http://" + l.Addr().String() + "/" + g.token + "/"
	s.http = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() { s.fails <- s.http.Serve(l) }()
	return s, nil
}

// URL is the address of the page, with its token.
func (s *Server) URL() string { return s.url }

// Close tells browsers that it is over, and returns when nobody is answered any more and
// the port is free.
func (s *Server) Close(ctx context.Context) error {
	s.page.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close() // somebody did not take the end of it
	}
	s.open.running.Wait()
	if err := <-s.fails; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve browsers: %w", err)
	}
	return nil
}

// routes are what there is below the token.
func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	text := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { s.whole(w, kind, []byte(body)) }
	}
	m.HandleFunc("/{$}", text("text/html", document))
	m.HandleFunc("/live.css", text("text/css", report.Style()+graph.SVGStyle+style))
	m.HandleFunc("/live.js", text("text/javascript", report.Script(script)))
	m.HandleFunc("/graph.svg", func(w http.ResponseWriter, _ *http.Request) {
		svg, err := s.page.draw()
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		case svg == nil:
			http.Error(w, "no manifest was read yet", http.StatusNotFound)
		default:
			s.whole(w, "image/svg+xml", svg)
		}
	})
	m.HandleFunc("/events", s.open.events)
	m.HandleFunc("/log", s.open.log)
	return m
}

// whole answers with all there is, to a browser that takes it.
func (s *Server) whole(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind+"; charset=utf-8")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.open.patience)) // nobody is waited for
	_, _ = w.Write(body)                                                                // a browser may go away
}

// streams are the browsers that are told what happens.
type streams struct {
	page     *Page
	patience time.Duration
	most     int
	running  sync.WaitGroup

	mu   sync.Mutex
	open int
}

// enter counts one; ok is false if there are too many. leave takes it away.
func (s *streams) enter() (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.most {
		return nil, false
	}
	s.open++
	s.running.Add(1)
	return func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
		s.running.Done()
	}, true
}

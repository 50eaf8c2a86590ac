package corpus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kaniko-build/test/githttp"
)

// Server offers the www directories of the cases that are being built, each
// below /NAME/ of ServerAddr, without directory listings.
type Server struct {
	srv *http.Server

	mu    sync.Mutex
	dirs  map[string]string // case name -> its www directory
	smart bool              // git serves repositories, which else are but files
}

// Serve starts a Server. While another process holds the address it waits, but
// not longer than ctx allows.
func Serve(ctx context.Context) (*Server, error) {
	var l net.Listener
	for {
		var err error
		var lc net.ListenConfig
		if l, err = lc.Listen(ctx, "tcp", ServerAddr); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("serve www directories: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
	s := &Server{dirs: map[string]string{}}
	s.srv = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go s.srv.Serve(l)
	return s, nil
}

// Offer serves dir for the case name until it is offered another one.
func (s *Server) Offer(name, dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs[name] = dir
}

// Smart has repositories spoken for by git, in place of their files alone, which
// not every client can do with.
func (s *Server) Smart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.smart = true
}

// Close ends the server.
func (s *Server) Close() error { return s.srv.Close() }

// ServeHTTP answers with one file. Names tell special wishes: "undated…" has
// no Last-Modified, "named…" gets another name by Content-Disposition.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	dir, ok := s.dirs[name]
	smart := s.smart
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if smart && strings.Contains(rest, ".git/") {
		h, err := githttp.Backend(r.Context(), dir)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h.Root = "/" + name
		h.ServeHTTP(w, r)
		return
	}
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(filepath.Clean("/"+rest))))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.IsDir() {
		http.NotFound(w, r)
		return
	}
	mod := st.ModTime()
	if strings.HasPrefix(filepath.Base(rest), "undated") {
		mod = time.Time{}
	}
	if strings.HasPrefix(filepath.Base(rest), "named") {
		w.Header().Set("Content-Disposition", `attachment; filename="other-name.txt"`)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", mod, f)
}

// HasWWW tells whether the prepared case needs the Server.
func (c *Case) HasWWW() (string, bool) {
	dir := filepath.Join(c.Dir, "www")
	_, err := os.Stat(dir)
	return dir, !errors.Is(err, os.ErrNotExist)
}

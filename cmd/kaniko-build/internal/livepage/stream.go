package livepage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"kaniko-build/graph"
)

// heartbeat is how often a silent stream says that it is there.
const heartbeat = 15 * time.Second

// stream is one browser that is told of something.
type stream struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
	buf      bytes.Buffer
}

// start begins a stream; nil says that there are too many.
func (s *streams) start(w http.ResponseWriter) (_ *stream, leave func()) {
	leave, ok := s.enter()
	if !ok {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many pages are open: close some", http.StatusServiceUnavailable)
		return nil, nil
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	st := &stream{w: w, control: http.NewResponseController(w), patience: s.patience}
	st.buf.WriteString("retry: 1000\n\n")
	return st, leave
}

// put appends an event. data is JSON and has no line ends.
func (st *stream) put(kind string, id uint64, data []byte) {
	fmt.Fprintf(&st.buf, "event: %s\nid: %d\ndata: %s\n\n", kind, id, data)
}

// flush sends what was put; it is false of a browser that is gone, or too slow.
func (st *stream) flush() bool {
	if st.buf.Len() == 0 {
		return true
	}
	if st.control.SetWriteDeadline(time.Now().Add(st.patience)) != nil {
		return false
	}
	_, err := st.buf.WriteTo(st.w)
	return err == nil && st.control.Flush() == nil
}

// wait returns when there is something new; it is false of a browser that is gone.
func (st *stream) wait(r *http.Request, news <-chan struct{}) bool {
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-news:
			return true
		case <-r.Context().Done():
			return false
		case <-beat.C:
			st.buf.WriteString(":\n\n")
			if !st.flush() {
				return false
			}
			beat.Reset(heartbeat)
		}
	}
}

// seen is up to where a browser has followed already: what it says when it comes back.
func seen(r *http.Request) (uint64, bool) {
	id := r.Header.Get("Last-Event-ID")
	if id == "" {
		id = r.URL.Query().Get("after")
	}
	n, err := strconv.ParseUint(id, 10, 64)
	return n, err == nil
}

// events tells of all but logs: a snapshot, unless the browser has one and nothing after
// it is gone, then the feed.
func (s *streams) events(w http.ResponseWriter, r *http.Request) {
	st, leave := s.start(w)
	if st == nil {
		return
	}
	defer leave()
	p := s.page
	at, follows := seen(r)
	for first := true; ; first = false {
		p.mu.Lock()
		news, closed, last := p.news, p.closed, p.feed.last
		list, ok := p.feed.since(at)
		if !follows || !ok {
			if !first {
				p.mu.Unlock()
				return // too slow; it comes back and gets a snapshot
			}
			data, err := json.Marshal(p.snapshot())
			if err != nil {
				p.mu.Unlock()
				return // as with send
			}
			list = nil
			st.put("snapshot", last, data)
		}
		for i, m := range list {
			st.put(m.kind, last-uint64(len(list)-1-i), m.data)
		}
		p.mu.Unlock()
		at, follows = last, true
		if closed {
			st.put("ended", at, []byte("{}"))
		}
		if !st.flush() || closed || !st.wait(r, news) {
			return
		}
	}
}

// lines is a part of a log.
type lines struct {
	First bool     `json:"first,omitempty"` // nothing before it was sent
	Gone  uint64   `json:"gone,omitempty"`  // lines before these that are not kept
	Lines []string `json:"lines"`
}

// log tells of the log of a node.
func (s *streams) log(w http.ResponseWriter, r *http.Request) {
	id := graph.ID(r.URL.Query().Get("node"))
	p := s.page
	p.mu.Lock()
	known := p.nodes[id] != nil
	p.mu.Unlock()
	if !known {
		http.Error(w, "no such image", http.StatusNotFound)
		return
	}
	st, leave := s.start(w)
	if st == nil {
		return
	}
	defer leave()
	at, follows := seen(r)
	for {
		p.mu.Lock()
		n, news, closed := p.nodes[id], p.news, p.closed
		if n == nil {
			p.mu.Unlock()
			return // the manifest has it no more
		}
		var l lines
		l.First = !follows || at > n.log.last
		if l.First {
			at = 0
		}
		if l.Lines, l.Gone = n.log.since(at); len(l.Lines) > 0 || l.First {
			if data, err := json.Marshal(l); err == nil {
				st.put("log", n.log.last, data)
			}
		}
		at, follows = n.log.last, true
		p.mu.Unlock()
		if closed {
			st.put("ended", at, []byte("{}"))
		}
		if !st.flush() || closed || !st.wait(r, news) {
			return
		}
	}
}

package livepage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/progress"
	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/test/port"
	"kaniko-build/watch"
)

// chain is a graph of nodes that each need the one before.
func chain(t testing.TB, ids ...graph.ID) *graph.Graph {
	t.Helper()
	var edges []graph.Edge
	for i, id := range ids[1:] {
		edges = append(edges, graph.Edge{Node: id, Needs: ids[i], Reason: "FROM " + string(ids[i])})
	}
	g, err := graph.New(ids, edges)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// serve serves a page.
func serve(t testing.TB, p *Page, o Options) *Server {
	t.Helper()
	s, err := Serve(t.Context(), "127.0.0.1:0", p, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

// get asks for what is below the address of the page.
func get(t testing.TB, at string, edit func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(b)
}

// told is one server-sent event.
type told struct{ kind, id, data string }

// listen follows a stream until the test ends or stop is called.
func listen(t testing.TB, at, last string) (next func() (told, error), stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if kind := a.Header.Get("Content-Type"); a.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		t.Fatalf("%s, %s", a.Status, kind)
	}
	stop = func() { cancel(); a.Body.Close() }
	t.Cleanup(stop)
	in := bufio.NewReader(a.Body)
	return func() (told, error) {
		var e told
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return e, err
			}
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch key {
			case "event":
				e.kind = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.kind != "" {
					return e, nil
				}
			}
		}
	}, stop
}

// until takes events up to one that holds a text.
func until(t testing.TB, next func() (told, error), kind, text string) told {
	t.Helper()
	for {
		e, err := next()
		if err != nil {
			t.Fatalf("no %s with %q: %v", kind, text, err)
		}
		if e.kind == kind && strings.Contains(e.data, text) {
			return e
		}
	}
}

func changed(text string, ids ...graph.ID) watch.Event {
	return watch.Event{Kind: watch.Changed, Time: time.Now(), Text: text, Nodes: ids, Causes: []watch.Cause{{Node: ids[0], Path: "f"}}}
}

func state(status watch.Status, ids ...graph.ID) watch.State {
	s := watch.State{Phase: watch.Busy}
	if status != watch.Building {
		s.Phase = watch.Idle
	}
	for _, id := range ids {
		s.Nodes = append(s.Nodes, watch.NodeState{ID: id, State: status, Cause: watch.Cause{Node: id, Path: "f"}})
	}
	return s
}

func ofNode(id string, kind executor.Kind, text string) progress.Event {
	return progress.Event{Event: executor.Event{Node: id, Kind: kind, Time: time.Now(), Stage: "s", Step: 1, Of: 2, Text: text, Data: text}}
}

func TestOnlyThePageIsAnswered(t *testing.T) {
	p := New()
	s := serve(t, p, Options{})
	at, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	p.Opened("shop", chain(t, "a", "b"), graph.Look{})
	set := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	token := strings.Trim(at.Path, "/")
	for _, c := range []struct {
		what string
		url  string
		edit func(*http.Request)
		code int
	}{
		{"the page", s.URL(), nil, 200},
		{"its sheet", s.URL() + "live.css", nil, 200},
		{"its script", s.URL() + "live.js", nil, 200},
		{"the picture", s.URL() + "graph.svg", nil, 200},
		{"no such thing", s.URL() + "x", nil, 404},
		{"no slash", strings.TrimSuffix(s.URL(), "/"), nil, 308},
		{"no token", "http://" + at.Host + "/", nil, 403},
		{"another token", "http://" + at.Host + "/" + strings.Repeat("A", len(token)) + "/", nil, 403},
		{"half of it", "http://" + at.Host + "/" + token[:13] + "/", nil, 403},
		{"other letters", "http://" + at.Host + "/" + strings.ToLower(token) + "/", nil, 403},
		{"a token elsewhere", "http://" + at.Host + "/live.js?token=" + token, nil, 403},
		{"localhost", s.URL(), host("localhost:" + at.Port()), 200},
		{"another name", s.URL(), host("rebound.test:" + at.Port()), 421},
		{"another port", s.URL(), host("127.0.0.1:1"), 421},
		{"no port", s.URL(), host("127.0.0.1"), 421},
		{"our origin", s.URL(), set("Origin", "http://"+at.Host), 200},
		{"another origin", s.URL(), set("Origin", "http://rebound.test"), 403},
		{"another port's origin", s.URL(), set("Origin", "http://127.0.0.1:1"), 403},
		{"the origin of a file", s.URL(), set("Origin", "null"), 403},
		{"an empty origin", s.URL(), set("Origin", ""), 403},
		{"a script of ours", s.URL() + "live.js", set("Sec-Fetch-Site", "same-origin"), 200},
		{"an address that was typed", s.URL(), set("Sec-Fetch-Site", "none"), 200},
		{"a script of another origin", s.URL() + "live.js", set("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"), 403},
		{"another port's frame", s.URL(), set("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 403},
		{"a link", s.URL(), set("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200},
		{"writing", s.URL(), func(r *http.Request) { r.Method = http.MethodPost }, 405},
		{"asking for more", s.URL(), func(r *http.Request) { r.Method = http.MethodOptions; r.Header.Set("Origin", "http://x.test") }, 403},
		{"a log of nobody", s.URL() + "log?node=x", nil, 404},
	} {
		a, body := get(t, c.url, c.edit)
		if a.StatusCode != c.code {
			t.Errorf("%s: %s, want %d", c.what, a.Status, c.code)
		}
		if c.code != 200 && c.code != 308 && strings.Contains(body, token) {
			t.Errorf("%s: the answer has the token", c.what)
		}
		if a.Header.Get("Content-Security-Policy") != policy || a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", c.what, a.Header)
		}
		for name := range a.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s", c.what, name)
			}
		}
	}
	for _, bad := range []string{"unsafe-inline", "unsafe-eval", "http:", "*"} {
		if strings.Contains(policy, bad) {
			t.Errorf("the policy has %s", bad)
		}
	}
	_, svg := get(t, s.URL()+"graph.svg", nil)
	if strings.Contains(svg, "<style") || !strings.Contains(svg, `data-id="a"`) {
		t.Errorf("the picture is %.300s", svg)
	}
}

func TestOtherAddressesAreRefused(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:7070", ":7070", "[::]:0", "192.0.2.1:7070", "example.test:7070", "7070", "127.0.0.1"} {
		err := Loopback("--serve", addr)
		if err == nil || !strings.Contains(err.Error(), "hint: write 127.0.0.1:7070") {
			t.Errorf("%s: %v", addr, err)
		}
		if _, err := Serve(t.Context(), addr, New(), Options{}); err == nil {
			t.Errorf("%s is served", addr)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "127.8.0.1:7070", "[::1]:0", "localhost:0"} {
		if err := Loopback("--serve", addr); err != nil {
			t.Error(err)
		}
	}
	s := serve(t, New(), Options{})
	at, _ := url.Parse(s.URL())
	if _, err := Serve(t.Context(), at.Host, New(), Options{}); err == nil || !strings.Contains(err.Error(), "hint: port 0") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestALateBrowserGetsASnapshotThenEvents follows a build, from its middle.
func TestALateBrowserGetsASnapshotThenEvents(t *testing.T) {
	p := New()
	s := serve(t, p, Options{})
	p.Opened("shop", chain(t, "a", "b"), graph.Look{})
	p.Watched(changed("building a, b", "a", "b"))
	p.Publish(state(watch.Building, "a", "b"))
	p.Event(ofNode("a", progress.NodeStarted, ""))
	next, stop := listen(t, s.URL()+"events", "")
	e, err := next()
	if err != nil {
		t.Fatal(err)
	}
	var first snapshot
	if err := json.Unmarshal([]byte(e.data), &first); err != nil || e.kind != "snapshot" {
		t.Fatalf("%s %s: %v", e.kind, e.data, err)
	}
	if first.Title != "shop" || len(first.Nodes) != 2 || first.Nodes[0].State != "building" || first.Nodes[1].State != "queued" || fmt.Sprint(first.Nodes[1].Needs) != "[a]" || first.Phase.Phase != "building" ||
		len(first.Builds) != 1 || first.Builds[0].Took != 0 {
		t.Fatalf("the snapshot is %s", e.data)
	}
	p.Event(ofNode("a", executor.StepStarted, "RUN x"))
	until(t, next, "nodes", "s 1/2 RUN x")
	done := ofNode("a", progress.NodeDone, "")
	done.Image = &progress.Image{Digest: "sha256:abc", Cached: true}
	p.Event(done)
	half := state(watch.Building, "a", "b")
	half.Nodes[0].State = watch.Built
	p.Publish(half)
	last := until(t, next, "nodes", `"state":"cached"`)
	stop()

	// It comes back, and has missed the end.
	p.Publish(state(watch.Built, "a", "b"))
	next, stop = listen(t, s.URL()+"events", last.id)
	defer stop()
	e, err = next()
	if err != nil || e.kind == "snapshot" {
		t.Fatalf("after %s comes %v, %v", last.id, e, err)
	}
	b := until(t, next, "build", `"took"`)
	if !strings.Contains(b.data, `"counts":{"built":1,"cached":1}`) {
		t.Errorf("the build is %s", b.data)
	}
	// A place that is no more, or never was, is a snapshot.
	for _, id := range []string{"999999", "x", "-1"} {
		next, stop := listen(t, s.URL()+"events", id)
		if e, err := next(); err != nil || e.kind != "snapshot" {
			t.Errorf("after %s comes %v, %v", id, e, err)
		}
		stop()
	}
}

func TestALogIsFollowed(t *testing.T) {
	p := New()
	s := serve(t, p, Options{})
	p.Opened("shop", chain(t, "a", "b"), graph.Look{})
	hostile := "<script>alert(1)</script>\x1b[31mred\x1b[0m\u2028\r\n"
	p.Event(ofNode("a", executor.Log, hostile))
	p.Event(ofNode("b", executor.Log, "of b\n"))
	next, stop := listen(t, s.URL()+"log?node=a", "")
	e := until(t, next, "log", "alert")
	var part lines
	if err := json.Unmarshal([]byte(e.data), &part); err != nil || !part.First || len(part.Lines) != 1 || !strings.HasPrefix(part.Lines[0], "[s 1/2] | <script>alert(1)</script>red") || strings.ContainsAny(e.data, "<\x1b\r") {
		t.Errorf("the log is %s, %v", e.data, err)
	}
	p.Event(ofNode("a", executor.Log, "two\n"))
	e = until(t, next, "log", "two")
	stop()
	for i := range 3 * maxLines {
		p.Event(ofNode("a", executor.Log, fmt.Sprintf("line %d\n", i)))
	}
	next, stop = listen(t, s.URL()+"log?node=a", e.id)
	defer stop()
	part = lines{}
	e = until(t, next, "log", "")
	if err := json.Unmarshal([]byte(e.data), &part); err != nil || part.First || part.Gone != 2*maxLines || len(part.Lines) != maxLines || !strings.HasSuffix(part.Lines[maxLines-1], fmt.Sprintf("line %d", 3*maxLines-1)) {
		t.Errorf("%v, %d are gone, %d are there", err, part.Gone, len(part.Lines))
	}
	// The image goes away.
	p.Opened("shop", chain(t, "b"), graph.Look{})
	if e, err := next(); err == nil {
		t.Errorf("then comes %v", e)
	}
}

// TestMemoryIsBounded has a node that prints for long, and many builds.
func TestMemoryIsBounded(t *testing.T) {
	p := New()
	p.Opened("shop", chain(t, "a", "b"), graph.Look{})
	for range 2000 {
		p.Watched(changed("building a", "a"))
		p.Publish(state(watch.Building, "a"))
		p.Event(ofNode("a", executor.Log, strings.Repeat("x", 50_000)+"\n"+strings.Repeat("y", 100)+"\n"))
		failed := ofNode("a", progress.NodeFailed, strings.Repeat("z", 10_000))
		p.Event(failed)
		s := state(watch.Failed, "a")
		s.Nodes[0].Error = strings.Repeat("z", 10_000)
		p.Publish(s)
	}
	n := p.nodes["a"]
	if p.feed.bytes > maxBytes || len(p.feed.list) > maxMessages || cap(p.feed.list) > 4*maxMessages {
		t.Errorf("the feed has %d messages, %d bytes", len(p.feed.list), p.feed.bytes)
	}
	if n.log.bytes > maxLogBytes || len(n.log.lines) > maxLines || cap(n.log.lines) > 4*maxLines {
		t.Errorf("the log has %d lines, %d bytes", len(n.log.lines), n.log.bytes)
	}
	if len(p.builds) != maxBuilds || p.builds[maxBuilds-1].Number != 2000 || p.builds[maxBuilds-1].Took == 0 {
		t.Errorf("%d builds, the last is %+v", len(p.builds), p.builds[maxBuilds-1])
	}
}

// TestASlowBrowserIsDropped has one that reads nothing; nobody waits for it.
func TestASlowBrowserIsDropped(t *testing.T) {
	p := New()
	s := serve(t, p, Options{Patience: 100 * time.Millisecond})
	p.Opened("shop", chain(t, "a", "b"), graph.Look{})
	at, _ := url.Parse(s.URL())
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %sevents HTTP/1.1\r\nHost: %s\r\n\r\n", at.Path, at.Host)
	if line, err := bufio.NewReaderSize(c, 16).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	next, stop := listen(t, s.URL()+"events", "") // one that keeps up
	defer stop()
	until(t, next, "snapshot", "")
	open := func() int {
		s.open.mu.Lock()
		defer s.open.mu.Unlock()
		return s.open.open
	}
	deadline := time.Now().Add(time.Minute)
	for i := 0; open() > 1; i++ {
		if time.Now().After(deadline) {
			t.Fatal("it is not dropped")
		}
		text := fmt.Sprintf("%d %s", i, strings.Repeat("x", 60_000))
		p.Watched(watch.Event{Kind: watch.Held, Time: time.Now(), Text: text})
		until(t, next, "note", text[:20])
	}
}

func TestTooManyBrowsersAreRefused(t *testing.T) {
	p := New()
	s := serve(t, p, Options{Browsers: 2})
	for range 2 {
		next, _ := listen(t, s.URL()+"events", "")
		until(t, next, "snapshot", "")
	}
	if a, _ := get(t, s.URL()+"events", nil); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
}

// TestNothingIsLeft closes a page that browsers look at.
func TestNothingIsLeft(t *testing.T) {
	held, err := port.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	before := runtime.NumGoroutine()
	p := New()
	s, err := Serve(t.Context(), held.Addr.String(), p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Opened("shop", chain(t, "a", "b"), graph.Look{})
	next, stop := listen(t, s.URL()+"events", "")
	logs, stopLogs := listen(t, s.URL()+"log?node=a", "")
	until(t, next, "snapshot", "")
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	until(t, next, "ended", "")
	until(t, logs, "ended", "")
	if _, err := next(); !errors.Is(err, io.EOF) {
		t.Errorf("then comes %v", err)
	}
	stop()
	stopLogs()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", held.Addr.String())
	if err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		l.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before { // those of the test's own clients end by themselves
		if time.Now().After(deadline) {
			buf := make([]byte, 64<<10)
			t.Fatalf("%d goroutines, there were %d\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
	p.Publish(state(watch.Built, "a")) // harmless
}

package livepage

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// guard lets only those requests through that come from a page of ours, or from
// somebody who was told its address.
type guard struct {
	hosts []string // names under which this page is asked for, with the port
	token string
	next  http.Handler // sees paths without the token
}

// newGuard guards what is served at an address.
func newGuard(addr net.Addr, next http.Handler) (*guard, error) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, err
	}
	hosts := []string{net.JoinHostPort(host, port), "localhost:" + port}
	return &guard{hosts, rand.Text(), next}, nil
}

// policy lets a page load what this server has, and nothing of it be made of text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP refuses, in this order: other names in the Host header, as a name that
// somebody else has may lead here by DNS; other tokens; pages of other origins; whatever
// is not reading.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !slices.Contains(g.hosts, strings.ToLower(r.Host)) {
		refuse(w, http.StatusMisdirectedRequest, "this page is not known by that name: open the address that kaniko-build watch printed")
		return
	}
	token, rest, slash := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !same(token, g.token) {
		refuse(w, http.StatusForbidden, "the address has no valid token: open the one that kaniko-build watch printed; each watch has another")
		return
	}
	if !ours(r) {
		refuse(w, http.StatusForbidden, "pages of other origins are not answered")
		return
	}
	if r.Method != http.MethodGet {
		h.Set("Allow", "GET")
		refuse(w, http.StatusMethodNotAllowed, "this page is only read")
		return
	}
	if !slash {
		http.Redirect(w, r, "/"+g.token+"/", http.StatusPermanentRedirect)
		return
	}
	inner := r.Clone(r.Context())
	inner.URL.Path, inner.URL.RawPath = "/"+rest, ""
	g.next.ServeHTTP(w, inner)
}

func refuse(w http.ResponseWriter, code int, text string) { http.Error(w, text, code) }

// same compares in a time that says nothing of either, their lengths included.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// ours tells whether a request is from our own page or from nobody's: an address that was
// typed, or a program. A link to the page may stand anywhere, as whoever wrote it knows
// the token, and sees nothing of what opens.
func ours(r *http.Request) bool {
	if origin, ok := r.Header["Origin"]; ok && !slices.Equal(origin, []string{"http://" + r.Host}) {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// Loopback tells why a server may not listen on an address, nil if it may. flag is
// where the address was given.
func Loopback(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s %q is no address\n  hint: write 127.0.0.1:7070; port 0 is any", flag, addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s %q: %q is no port\n  hint: write 127.0.0.1:7070; port 0 is any", flag, addr, port)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		if port == "" || port == "0" {
			port = "7070"
		}
		return fmt.Errorf("%s %q is no loopback address: the page is for this machine only\n  hint: write 127.0.0.1:%s; from elsewhere go through ssh -L %s:127.0.0.1:%s HOST", flag, addr, port, port, port)
	}
	return nil
}

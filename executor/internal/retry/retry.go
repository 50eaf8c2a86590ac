// Package retry repeats what failed on the network for a reason that passes.
//
//	Transport.RoundTrip ──> 429, 5xx, a connection that broke: again, and later each time
//	Pause, Passing      ──> for who repeats more than one request, as a transfer that was cut
package retry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	firstPause = 200 * time.Millisecond
	maxPause   = 10 * time.Second
	maxAfter   = 60 * time.Second // of a Retry-After; longer is an error for the user to see
	refusals   = 3                // tries of a host that refuses connections
)

// Attempts is how often a request is tried where nobody says.
const Attempts = 4

// Transport repeats requests. One with a body that cannot be had again is not repeated.
type Transport struct {
	Inner    http.RoundTripper
	Attempts func(host string) int // nil is Attempts for all
	Passes   func(error) bool      // tells which errors may be gone the next time; nil is Passing
}

// Client is c with a Transport before its own.
func Client(c *http.Client) *http.Client {
	again := *c
	if again.Transport == nil {
		again.Transport = http.DefaultTransport
	}
	again.Transport = &Transport{Inner: again.Transport}
	return &again
}

// RoundTrip is that of http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	attempts, passes := Attempts, Passing
	if t.Attempts != nil {
		attempts = t.Attempts(req.URL.Host)
	}
	if t.Passes != nil {
		passes = t.Passes
	}
	for try := 1; ; try++ {
		if try > 1 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
		resp, err := t.Inner.RoundTrip(req)
		again := try < attempts && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
		if err != nil {
			if !again || !passes(err) || Refused(err) && try >= refusals {
				return nil, err
			}
			if perr := Pause(req.Context(), try, 0); perr != nil {
				return nil, perr
			}
			continue
		}
		if !again || !PassingStatus(resp.StatusCode) {
			return resp, nil
		}
		after := After(resp.Header.Get("Retry-After"), time.Now())
		if after > maxAfter {
			return resp, nil
		}
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // lets the connection be used again
		resp.Body.Close()
		if perr := Pause(req.Context(), try, after); perr != nil {
			return nil, perr
		}
	}
}

// Pause waits before try+1, where the first try is 1: at least after, and longer each
// time. It ends early with the cause of ctx.
func Pause(ctx context.Context, try int, after time.Duration) error {
	d := min(firstPause<<(try-1), maxPause)
	d = max(d/2+rand.N(d/2+1), after)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// After reads a header Retry-After: seconds or a date (RFC 9110, section 10.2.3). What is
// neither is 0.
func After(h string, now time.Time) time.Duration {
	if h == "" {
		return 0
	}
	if n, err := strconv.Atoi(h); err == nil {
		return time.Duration(max(0, min(n, 1<<30))) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// PassingStatus tells whether an answer may be another one the next time.
func PassingStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, 499, 522:
		return true
	}
	return false
}

// Passing tells whether an error may be gone the next time.
func Passing(err error) bool {
	var op net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed), Refused(err):
		return true
	}
	return errors.As(err, &op) && op.Timeout()
}

// Refused tells whether nobody listens where a connection was asked for.
func Refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

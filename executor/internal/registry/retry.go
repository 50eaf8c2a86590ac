package registry

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

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	firstPause = 200 * time.Millisecond
	maxPause   = 10 * time.Second
	maxAfter   = 60 * time.Second // of a Retry-After; longer is an error for the user to see
)

// retrier repeats requests that failed for a reason that passes. A request with
// a body that cannot be had again is not repeated here.
type retrier struct {
	inner    http.RoundTripper
	attempts func(host string) int
}

func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		if try > 1 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
		resp, err := r.inner.RoundTrip(req)
		again := try < r.attempts(req.URL.Host) && (req.Body == nil || req.Body == http.NoBody || req.GetBody != nil)
		if err != nil {
			if !again || !passing(err) || (refused(err) && try >= 3) {
				return nil, err
			}
			if perr := pause(req.Context(), try, 0); perr != nil {
				return nil, perr
			}
			continue
		}
		if !again || !passingStatus(resp.StatusCode) {
			return resp, nil
		}
		after := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		if after > maxAfter {
			return resp, nil
		}
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // lets the connection be used again
		resp.Body.Close()
		if perr := pause(req.Context(), try, after); perr != nil {
			return nil, perr
		}
	}
}

// pause waits before try+1: at least after, and longer each time.
func pause(ctx context.Context, try int, after time.Duration) error {
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

// retryAfter reads the header: seconds or a date.
func retryAfter(h string, now time.Time) time.Duration {
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

func passingStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, 499, 522:
		return true
	}
	return false
}

// passing tells whether an error may be gone the next time.
func passing(err error) bool {
	var status *transport.Error
	var op net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errPlain):
		return false
	case errors.As(err, &status):
		return passingStatus(status.StatusCode)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed), refused(err):
		return true
	}
	return errors.As(err, &op) && op.Timeout()
}

// cut tells whether a transfer broke off that can be begun again. Requests that
// failed as a whole have been repeated by the retrier already.
func cut(err error) bool {
	var status *transport.Error
	return passing(err) && !errors.As(err, &status) && !refused(err)
}

func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

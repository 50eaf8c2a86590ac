package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// doors asks each host once what handshakes ask it for each repository: a GET of
// /v2/ without credentials. It keeps the answers that say who may come in, and
// that a host does not speak TLS; whoever finds a door failing at the same time
// shares the failure.
type doors struct {
	inner   http.RoundTripper
	jobs    *sync.WaitGroup
	answers flights[string, answer]
}

// answer is a response that can be given many times, or an error that will stay.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// otherAnswer is one that is not kept: the host may say something else later.
type otherAnswer struct{ answer }

func (o *otherAnswer) Error() string { return http.StatusText(o.status) }

// maxAnswer is how much of a body is kept, in bytes; it is for people.
const maxAnswer = 64 << 10

func (d *doors) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || req.URL.Path != "/v2/" || req.Header.Get("Authorization") != "" {
		return d.inner.RoundTrip(req)
	}
	a, err := d.answers.do(req.Context(), d.jobs, req.URL.Scheme+"://"+req.URL.Host, func(ctx context.Context) (answer, error) {
		return d.knock(req.Clone(ctx))
	})
	var other *otherAnswer
	switch {
	case errors.As(err, &other):
		a = other.answer
	case err != nil:
		return nil, err
	case a.err != nil:
		return nil, a.err
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header.Clone(), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: req,
	}, nil
}

func (d *doors) knock(req *http.Request) (answer, error) {
	resp, err := d.inner.RoundTrip(req)
	var noTLS tls.RecordHeaderError
	if errors.As(err, &noTLS) && string(noTLS.RecordHeader[:]) == "HTTP/" {
		return answer{err: err}, nil
	}
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("read %s: %w", req.URL, err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: body}
	if a.status != http.StatusOK && a.status != http.StatusUnauthorized {
		return answer{}, &otherAnswer{a}
	}
	return a, nil
}

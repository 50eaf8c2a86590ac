package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// client makes the few requests to an API server that a build needs.
type client struct {
	config    *config
	namespace string
	http      *http.Client
}

func newClient(c *config) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = c.tls
	t.ForceAttemptHTTP2 = false // an exec takes its connection over
	t.TLSNextProto = nil
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if c.proxy != nil {
		t.Proxy = http.ProxyURL(c.proxy)
	}
	return &client{config: c, namespace: c.namespace, http: &http.Client{Transport: &authorized{t, c.auth}}}
}

// authorized says of each request who asks.
type authorized struct {
	base http.RoundTripper
	auth authorizer
}

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	for again := false; ; again = true {
		req := r.Clone(r.Context())
		req.Header.Set("User-Agent", "kaniko-build")
		if a.auth != nil {
			if err := a.auth.authorize(r.Context(), req.Header, again); err != nil {
				return nil, err
			}
		}
		if again && r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			req.Body = body
		}
		res, err := a.base.RoundTrip(req)
		if _, renews := a.auth.(*pluginAuth); err == nil && res.StatusCode == http.StatusUnauthorized && renews && !again && (r.Body == nil || r.GetBody != nil) {
			res.Body.Close()
			continue
		}
		return res, err
	}
}

// statusError is an API server's refusal.
type statusError struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (e *statusError) Error() string { return e.Message }

// code is the HTTP status of an error, 0 if it has none.
func code(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.Code
	}
	return 0
}

func missing(err error) bool { return code(err) == http.StatusNotFound }

// send makes a request. The body of the response is the caller's to close.
func (k *client) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
		in = bytes.NewReader(b)
	}
	at := k.config.server + path
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, at, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := k.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &hinted{err, "the cluster has to be reachable from here; " + configRemedy}
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, refusal(res)
	}
	return res, nil
}

func refusal(res *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // what there is
	e := &statusError{}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Message = strings.TrimSpace(fmt.Sprintf("the API server answers %s: %s", res.Status, bytes.ToValidUTF8(b[:min(len(b), 512)], nil)))
	}
	e.Code = res.StatusCode
	return e
}

// do makes a request whose answer is small. Those that change nothing are tried again
// when the server is too busy.
func (k *client) do(ctx context.Context, method, path string, query url.Values, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		res, err := k.send(ctx, method, path, query, body)
		if c := code(err); c == http.StatusTooManyRequests || method == http.MethodGet && c >= 500 {
			select {
			case <-time.After(wait):
				if wait < 4*time.Second {
					continue
				}
			case <-ctx.Done():
			}
		}
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if out == nil {
			_, err = io.Copy(io.Discard, res.Body)
			return err
		}
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			return fmt.Errorf("read the API server's answer: %w", err)
		}
		return nil
	}
}

func (k *client) pods(name string) string {
	at := "/api/v1/namespaces/" + url.PathEscape(k.namespace) + "/pods"
	if name != "" {
		at += "/" + url.PathEscape(name)
	}
	return at
}

func (k *client) create(ctx context.Context, p *pod) (*pod, error) {
	var out pod
	return &out, k.do(ctx, http.MethodPost, k.pods(""), nil, p, &out)
}

func (k *client) get(ctx context.Context, name string) (*pod, error) {
	var out pod
	return &out, k.do(ctx, http.MethodGet, k.pods(name), nil, nil, &out)
}

// remove deletes a pod; one that is not there is fine.
func (k *client) remove(ctx context.Context, name string) error {
	err := k.do(ctx, http.MethodDelete, k.pods(name), url.Values{"gracePeriodSeconds": {"1"}}, nil, nil)
	if missing(err) {
		return nil
	}
	return err
}

// follow watches a pod, of which p is known, until done says so.
func (k *client) follow(ctx context.Context, p *pod, done func(*pod) bool) (*pod, error) {
	name := p.Metadata.Name
	for pause := time.Duration(0); ; pause = min(2*pause+10*time.Millisecond, time.Second) {
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if p.Metadata.ResourceVersion == "" {
			var err error
			if p, err = k.get(ctx, name); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				return nil, err
			}
		}
		if done(p) {
			return p, nil
		}
		found, err := k.watch(ctx, p, done)
		switch {
		case found != nil:
			return found, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case code(err) == http.StatusForbidden || code(err) == http.StatusUnauthorized || missing(err):
			return nil, err
		}
		p = &pod{Metadata: metadata{Name: name}} // the watch ended, as all do some time: ask anew
	}
}

// watch follows a pod for as long as one request does; nil if it ended before done.
func (k *client) watch(ctx context.Context, p *pod, done func(*pod) bool) (*pod, error) {
	res, err := k.send(ctx, http.MethodGet, k.pods(""), url.Values{
		"watch": {"true"}, "fieldSelector": {"metadata.name=" + p.Metadata.Name}, "resourceVersion": {p.Metadata.ResourceVersion}, "timeoutSeconds": {"300"},
	}, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	in := json.NewDecoder(res.Body)
	for {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := in.Decode(&e); err != nil {
			return nil, err
		}
		switch e.Type {
		case "ADDED", "MODIFIED":
			var p pod
			if err := json.Unmarshal(e.Object, &p); err != nil {
				return nil, err
			}
			if done(&p) {
				return &p, nil
			}
		case "DELETED":
			return nil, &statusError{Code: http.StatusNotFound, Message: "the pod was deleted"}
		case "ERROR":
			s := &statusError{}
			if err := json.Unmarshal(e.Object, s); err != nil {
				return nil, err
			}
			if s.Code == http.StatusNotFound {
				s.Code = http.StatusGone // of the version, not of the pod
			}
			return nil, s
		}
	}
}

// tidy deletes pods that ended some time ago and that nobody deleted, as who made them
// was killed. That it fails is no harm: the next run does it.
func (k *client) tidy(ctx context.Context) {
	var list struct {
		Items []pod `json:"items"`
	}
	if k.do(ctx, http.MethodGet, k.pods(""), url.Values{"labelSelector": {managedLabel + "=" + managedBy}, "limit": {"500"}}, nil, &list) != nil {
		return
	}
	for _, p := range list.Items {
		if len(p.Status.Containers) == 0 {
			continue
		}
		end := p.Status.Containers[0].State.Terminated
		if end != nil && !end.Finished.IsZero() && time.Since(end.Finished) > keptTime && k.remove(ctx, p.Metadata.Name) != nil {
			return
		}
	}
}

// may asks whether this user has a right in the namespace.
func (k *client) may(ctx context.Context, r Right) (bool, error) {
	resource, sub, _ := strings.Cut(r.Resource, "/")
	type attributes struct {
		Namespace   string `json:"namespace"`
		Verb        string `json:"verb"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource,omitempty"`
	}
	var q struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Attributes attributes `json:"resourceAttributes"`
		} `json:"spec"`
	}
	q.APIVersion, q.Kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
	q.Spec.Attributes = attributes{cmp.Or(k.namespace, "default"), r.Verb, resource, sub}
	var a struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	err := k.do(ctx, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", nil, q, &a)
	return a.Status.Allowed, err
}

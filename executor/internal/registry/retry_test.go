package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRetriesAreAHostsOwn asks a host that is always busy.
func TestRetriesAreAHostsOwn(t *testing.T) {
	for _, c := range []struct{ all, own, want int }{{-1, 0, 1}, {2, 0, 3}, {-1, 1, 2}, {3, -1, 1}} {
		var asked atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		host := strings.TrimPrefix(srv.URL, "http://")
		cl := newClient(t, newStore(t), Options{Retries: c.all, Hosts: map[string]Host{host: {Retries: c.own}, "other.example": {Retries: 7}}})
		resp, err := cl.plain.(*doors).inner.RoundTrip(httptest.NewRequest(http.MethodGet, srv.URL+"/v2/", nil).Clone(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
		if got := int(asked.Load()); got != c.want {
			t.Errorf("%d for all, %d for the host: asked %d times, want %d", c.all, c.own, got, c.want)
		}
	}
}

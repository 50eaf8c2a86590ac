package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kaniko-build/executor/internal/wire"
)

// connect gives the two ends with both readers running.
func connect(t *testing.T, handle wire.Handler) (inside *wire.Conn, stop func()) {
	t.Helper()
	a, b, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	in, err := wire.New(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := wire.New(b, handle)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, c := range []*wire.Conn{in, out} {
		wg.Go(func() {
			if err := c.Run(context.WithoutCancel(t.Context())); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	stop = sync.OnceFunc(func() { in.Close(); wg.Wait() })
	t.Cleanup(stop)
	return in, func() { out.Close() }
}

func TestCallsCarryFilesAndErrors(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	os.WriteFile(p, []byte("content"), 0o600)
	in, _ := connect(t, func(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
		if method != "open" {
			return nil, nil, fmt.Errorf("no method %q", method)
		}
		var name string
		if err := json.Unmarshal(arg, &name); err != nil {
			return nil, nil, err
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, fmt.Errorf("open for the node: %w", err)
		}
		return len(name), []*os.File{f}, nil
	})
	var wg sync.WaitGroup
	for range 50 { // many at once: answers find their callers
		wg.Go(func() {
			var n int
			files, err := in.Call(t.Context(), "open", p, &n)
			if err != nil || n != len(p) || len(files) != 1 {
				t.Errorf("Call = %d, %d files, %v", n, len(files), err)
				return
			}
			defer files[0].Close()
			if b, _ := io.ReadAll(files[0]); string(b) != "content" {
				t.Errorf("read %q", b)
			}
		})
	}
	wg.Wait()
	if _, err := in.Call(t.Context(), "open", p+"none", nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "open for the node") {
		t.Errorf("a missing file came back as %v", err)
	}
	big := strings.Repeat("x", 5<<20)
	if _, err := in.Call(t.Context(), big, nil, nil); err == nil || !strings.Contains(err.Error(), "no method") {
		t.Error("a frame larger than the socket's buffer did not arrive")
	}
}

func TestCancelReachesTheHandlerAndGoneEndsCalls(t *testing.T) {
	started, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	in, hangUp := connect(t, func(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
		started <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, nil, ctx.Err()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-started; cancel(errors.New("enough")) }()
	if _, err := in.Call(ctx, "wait", nil, nil); err == nil || err.Error() != "enough" {
		t.Errorf("cancelled call = %v, want its cause", err)
	}
	<-ended
	go func() { <-started; hangUp() }()
	if _, err := in.Call(t.Context(), "wait", nil, nil); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("call to a closed end = %v, want ErrClosed", err)
	}
}

func TestNotificationsKeepTheirOrder(t *testing.T) {
	var got []int
	in, _ := connect(t, func(ctx context.Context, method string, arg json.RawMessage) (any, []*os.File, error) {
		if method == "n" {
			var n int
			json.Unmarshal(arg, &n)
			got = append(got, n)
		}
		return nil, nil, nil
	})
	for i := range 100 {
		if err := in.Notify("n", i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Call(t.Context(), "sync", nil, nil); err != nil {
		t.Fatal(err)
	}
	for i, n := range got {
		if i != n {
			t.Fatalf("notification %d came as number %d", n, i)
		}
	}
	if len(got) != 100 {
		t.Errorf("%d of 100 arrived", len(got))
	}
}

package port_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"kaniko-build/test/port"

	"golang.org/x/sys/unix"
)

// TestAHeldPortIsNobodysButTheServers asks for any port until there is none, in a network of its own
// that has few.
func TestAHeldPortIsNobodysButTheServers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	inNetwork(t, func() {
		h, err := port.Hold()
		if err != nil {
			t.Fatal(err)
		}
		for _, any := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0"} {
			n := 0
			for {
				l, err := net.Listen("tcp", any)
				if err != nil {
					if !strings.Contains(err.Error(), "address already in use") {
						t.Fatal(err)
					}
					break
				}
				defer l.Close()
				if n++; l.Addr().(*net.TCPAddr).Port == int(h.Addr.Port()) {
					t.Errorf("%s was given the port that is held", any)
				}
				if n > 100 {
					t.Fatal("there are more ports than there should be")
				}
			}
			if any == "127.0.0.1:0" && n < 5 {
				t.Errorf("there were %d ports", n)
			}
		}
	})
}

// TestServersComeAndGo starts one server after the other at a held port.
func TestServersComeAndGo(t *testing.T) {
	h, err := port.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if c, err := net.Dial("tcp", h.Addr.String()); err == nil {
		c.Close()
		t.Error("somebody listens at a port that is only held")
	}
	for _, text := range []string{"first", "second"} {
		l, err := net.Listen("tcp", h.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		resp, err := http.Get("http://" + h.Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != text {
			t.Errorf("got %q, %v, want %q", b, err, text)
		}
		s.Close()
	}
}

// inNetwork calls fn in a network with a loopback and ten ports to give.
func inNetwork(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network of its own: %v", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, up); err != nil {
		t.Fatalf("turn loopback on: %v", err)
	}
	// It shows the network of the thread that opens it.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40009"), 0o644); err != nil {
		t.Fatal(err)
	}
	fn()
}

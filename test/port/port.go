// Package port holds ports of loopback for servers that cannot be handed a listener.
//
//	Hold -> bound, not listened at -> a server binds the same address and listens
//
// A port that was free a moment ago is anybody's: between the look and the server's
// start the kernel may give it to another process, and what then answers there is a
// stranger. A held one is bound all the while, by a socket with SO_REUSEADDR that does
// not listen. Linux gives such a port to nobody who asks for any (port 0, or a
// connection outwards), and lets whoever names it and has set SO_REUSEADDR, as Go,
// node and busybox do, listen there.
package port

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Held is a port of 127.0.0.1 that no other process is given.
type Held struct {
	Addr netip.AddrPort
	fd   int
}

// Hold takes a port, until Close or the end of the process.
func Hold() (*Held, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("hold a port: %w", err)
	}
	h := &Held{fd: fd}
	if err := h.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("hold a port: %w", err), h.Close())
	}
	return h, nil
}

func (h *Held) bind() error {
	if err := unix.SetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if err := unix.Bind(h.fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		return err
	}
	sa, err := unix.Getsockname(h.fd)
	if err != nil {
		return err
	}
	in, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return fmt.Errorf("internal error: a socket of IPv4 is bound to %T", sa)
	}
	h.Addr = netip.AddrPortFrom(loopback, uint16(in.Port))
	return nil
}

// Close gives the port back. A server that listens there goes on.
func (h *Held) Close() error { return unix.Close(h.fd) }

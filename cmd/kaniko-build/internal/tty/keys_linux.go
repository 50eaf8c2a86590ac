package tty

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Keyboard tells of keys that are pressed on a terminal, each at once. Keys that make
// signals go on doing so. Close puts the terminal as it was found.
type Keyboard struct {
	f    *os.File
	wake [2]int // a pipe whose end of file ends reading
	over sync.WaitGroup
	let  func() // of the Stopper

	mu   sync.Mutex
	echo *echo // nil: it was left for good
}

// Keys begins to tell of keys, one call of pressed at a time. It is nil where f is no
// terminal in whose foreground this process is.
func Keys(f *os.File, stops *Stopper, pressed func(key byte)) (*Keyboard, error) {
	if !foreground(f) {
		return nil, nil
	}
	k := &Keyboard{f: f, echo: &echo{f: f}}
	if err := unix.Pipe2(k.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	k.let = stops.hold(k.give, k.take)
	k.over.Go(func() { k.read(pressed) })
	return k, nil
}

// Close may be called of nil, and more than once.
func (k *Keyboard) Close() {
	if k == nil || k.wake[1] < 0 {
		return
	}
	k.let()
	k.Leave()
	_ = unix.Close(k.wake[1]) // nothing is written to it
	k.wake[1] = -1
	k.over.Wait()
	_ = unix.Close(k.wake[0])
}

// Leave gives the terminal back at once, for a program that ends now.
func (k *Keyboard) Leave() {
	if k == nil {
		return
	}
	k.give()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.echo = nil
}

// read reads keys until Close, or the terminal goes away.
func (k *Keyboard) read(pressed func(byte)) {
	fd := int(k.f.Fd())
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(k.wake[0])}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			if fds[0].Revents != 0 {
				return
			}
			continue
		}
		var b [64]byte
		n, err := unix.Read(fd, b[:])
		if err != nil && err != unix.EINTR && err != unix.EAGAIN || n == 0 && err == nil {
			return
		}
		for _, key := range b[:max(n, 0)] {
			pressed(key)
		}
	}
}

// give gives the terminal back while the process is stopped.
func (k *Keyboard) give() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.echo != nil {
		k.echo.restore()
	}
}

// take takes it again when the process goes on.
func (k *Keyboard) take() {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.echo == nil || !foreground(k.f):
	case k.echo.before == nil:
		k.echo.again()
	default: // a shell may have set it as it likes
		k.echo.still()
	}
}

package tty

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Keyboard tells of keys that are pressed on a terminal, each at once. Keys that make
// signals go on doing so. Close puts the terminal as it was found.
type Keyboard struct {
	f       *os.File
	wake    [2]int // a pipe whose end of file ends reading
	signals chan os.Signal
	over    sync.WaitGroup
	drawn   func() bool

	mu   sync.Mutex
	echo *echo
}

// Keys begins to tell of keys, one call of pressed at a time. It is nil where f is no
// terminal in whose foreground this process is. drawn tells whether a View is shown,
// which then gives the terminal back when the process is stopped.
func Keys(f *os.File, drawn func() bool, pressed func(key byte)) (*Keyboard, error) {
	if !foreground(f) {
		return nil, nil
	}
	k := &Keyboard{f: f, signals: make(chan os.Signal, 2), drawn: drawn}
	if err := unix.Pipe2(k.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	k.echo = silence(f)
	signal.Notify(k.signals, syscall.SIGTSTP, syscall.SIGCONT)
	k.over.Go(k.stopped)
	k.over.Go(func() { k.read(pressed) })
	return k, nil
}

// Close may be called of nil, and more than once.
func (k *Keyboard) Close() {
	if k == nil || k.wake[1] < 0 {
		return
	}
	signal.Stop(k.signals)
	close(k.signals)
	_ = unix.Close(k.wake[1]) // nothing is written to it
	k.wake[1] = -1
	k.over.Wait()
	_ = unix.Close(k.wake[0])
	k.Leave()
}

// Leave gives the terminal back at once, for a program that ends now.
func (k *Keyboard) Leave() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.echo.restore()
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

// stopped gives the terminal back while the process is stopped, and takes it again
// when it goes on.
func (k *Keyboard) stopped() {
	for s := range k.signals {
		if s == syscall.SIGCONT {
			k.mu.Lock()
			if k.echo.before == nil && foreground(k.f) {
				k.echo.again()
			} else if foreground(k.f) { // a shell may have set it as it likes
				k.echo.still()
			}
			k.mu.Unlock()
			continue
		}
		if k.drawn() {
			continue
		}
		k.Leave()
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}

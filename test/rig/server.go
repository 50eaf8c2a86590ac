package rig

import (
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// StartServer runs a program that serves on a free port of loopback until the
// test ends. command makes it for an address, 127.0.0.1:PORT; answers waits until
// it serves there, and fails when done is closed before.
func StartServer(t testing.TB, command func(addr string) *exec.Cmd, answers func(addr string, done <-chan struct{}) error) (addr string) {
	t.Helper()
	var last error
	for range 5 { // another process may take the port in between
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		cmd := command(addr)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started, done := make(chan error), make(chan struct{})
		go func() {
			// It is killed when the thread ends that started it, so that thread
			// has to be one that nobody else can end.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			defer close(done)
			err := cmd.Start()
			started <- err
			if err == nil {
				cmd.Wait()
			}
		}()
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		if last = answers(addr, done); last == nil {
			t.Cleanup(func() { cmd.Process.Kill(); <-done })
			return addr
		}
		cmd.Process.Kill()
		<-done
	}
	t.Fatalf("start a server: %v", last)
	return ""
}

// Listens waits until somebody listens at addr, for a minute at most: answers for
// StartServer of a program that needs no more.
func Listens(addr string, done <-chan struct{}) error {
	deadline := time.After(time.Minute)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-done:
			return fmt.Errorf("the server for %s ended", addr)
		case <-deadline:
			return fmt.Errorf("nobody listens at %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

package rig

import (
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"kaniko-build/test/port"
)

// HoldPort is an address of loopback that nobody but a server of this test is given:
// 127.0.0.1:PORT, until the test ends.
func HoldPort(t testing.TB) (addr string) {
	t.Helper()
	h, err := port.Hold()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.Addr.String()
}

// StartServer runs a program that serves on a port of loopback until the test
// ends. command makes it for an address, 127.0.0.1:PORT; answers waits until it
// serves there, and fails when done is closed before.
func StartServer(t testing.TB, command func(addr string) *exec.Cmd, answers func(addr string, done <-chan struct{}) error) (addr string) {
	t.Helper()
	addr = HoldPort(t)
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
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	if err := answers(addr, done); err != nil {
		t.Fatalf("start a server: %v", err)
	}
	return addr
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

package tty

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets the test binary be a program that is stopped: see TestStopsOnce.
func TestMain(m *testing.M) {
	if os.Getenv("TTY_TEST_STOPPED") == "" {
		os.Exit(m.Run())
	}
	var s Stopper
	for _, name := range []string{"keyboard", "view"} {
		s.hold(func() { fmt.Println("give", name) }, func() { fmt.Println("take", name) })
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the end of it
}

// A process whose terminal several have stops once, however often it is told to before it
// does; they give the terminal back in the opposite order.
func TestStopsOnce(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "TTY_TEST_STOPPED=1")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	says := func(want ...string) {
		t.Helper()
		var got []string
		for len(got) < len(want) && lines.Scan() {
			again := strings.HasPrefix(lines.Text(), "take ") && strings.HasPrefix(want[0], "give ")
			if !again { // the signal that let it go on is told of by itself, too
				got = append(got, lines.Text())
			}
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Fatalf("it says %q, want %q", got, want)
		}
	}
	says("take keyboard", "take view", "ready")
	for range 3 {
		for range 2 {
			if err := c.Process.Signal(syscall.SIGTSTP); err != nil {
				t.Fatal(err)
			}
		}
		says("give view", "give keyboard")
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(c.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("it is not stopped: %v, %v", status, err)
		}
		if err := c.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		says("take keyboard", "take view")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // the signal that let it go on is told of too
		if !strings.HasPrefix(lines.Text(), "take ") {
			t.Errorf("after that it says %q", lines.Text())
		}
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

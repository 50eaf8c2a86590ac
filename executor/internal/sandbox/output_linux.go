package sandbox

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// output is the standard streams of a RUN.
type output struct {
	null  *os.File
	pipes []*stream
	fds   [2]int // of the child: stdout, stderr
	copy  sync.WaitGroup
}

type stream struct {
	r, w *os.File
	to   io.Writer
}

func newOutput(spec RunSpec, ids IDMap) (*output, error) {
	o := &output{}
	var err error
	if o.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for i, w := range []io.Writer{spec.Stdout, spec.Stderr} {
		switch {
		case w == nil:
			o.fds[i] = int(o.null.Fd())
			continue
		case i == 1 && sameWriter(spec.Stdout, w):
			o.fds[i] = o.fds[0]
			continue
		}
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			o.close()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		// Our end works with deadlines; the child's one blocks, as programs expect.
		unix.SetNonblock(fds[0], true)
		s := &stream{r: os.NewFile(uintptr(fds[0]), "output"), w: os.NewFile(uintptr(fds[1]), "output"), to: w}
		o.pipes = append(o.pipes, s)
		o.fds[i] = fds[1]
		// The user of the RUN may open /dev/stdout again.
		if ids.ContainsUID(spec.UID) && spec.UID != 0 {
			if err := unix.Fchown(fds[1], int(spec.UID), -1); err != nil {
				o.close()
				return nil, fmt.Errorf("give output to user %d: %w", spec.UID, err)
			}
		}
	}
	return o, nil
}

func sameWriter(a, b io.Writer) bool {
	defer func() { recover() }() // an incomparable type
	return a == b
}

// started closes the child's ends and copies until they are closed everywhere.
func (o *output) started() {
	for _, s := range o.pipes {
		s.w.Close()
		o.copy.Go(func() {
			if _, err := io.Copy(s.to, s.r); err != nil {
				io.Copy(io.Discard, s.r) // a reader that fails must not stop the step
			}
		})
	}
}

// wait returns when all output has been copied.
func (o *output) wait() {
	for _, s := range o.pipes {
		s.r.SetReadDeadline(time.Now().Add(grace))
	}
	o.copy.Wait()
}

func (o *output) close() {
	for _, s := range o.pipes {
		s.w.Close()
		s.r.Close()
	}
	o.null.Close()
}

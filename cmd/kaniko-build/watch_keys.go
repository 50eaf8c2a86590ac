package main

import (
	"bufio"
	"context"
	"errors"
	"os"

	"kaniko-build/cmd/kaniko-build/internal/tty"
	"kaniko-build/watch"
)

// listen lets keys and SIGHUP speak to the engine. Where input is no terminal, each
// line of it is an Enter. stop gives the terminal back.
func (s *stage) listen(e *watch.Engine, manual bool) (stop func(), err error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.ctx = ctx
	end := func() { cancel(errors.New("watching is over")) }
	s.term.leave.onHangup(func() bool {
		if manual {
			go e.Check() // it may have to wait for a look
		}
		return manual
	})
	in, ok := s.term.in.(*os.File)
	if !ok || !isTerminal(in) {
		if manual {
			go func() { // ends with the process: nothing interrupts a read
				for lines := bufio.NewScanner(s.term.in); lines.Scan() && ctx.Err() == nil; {
					e.Check()
				}
			}()
		}
		return end, nil
	}
	paused := false
	keys := make(chan byte, 16)
	keyboard, err := tty.Keys(in, s.term.stops, func(key byte) {
		select {
		case keys <- key:
		default: // somebody sleeps on the keyboard
		}
	})
	if err != nil || keyboard == nil {
		return end, err
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case key := <-keys:
				switch key {
				case 'r':
					e.Rebuild()
				case 'f':
					s.focus()
				case 'p':
					paused = !paused
					e.Pause(paused)
				case 'q':
					cancel(errQuit)
				case '\n', '\r':
					if manual {
						e.Check()
					}
				}
			}
		}
	}()
	s.keys = "r builds all again, f shows one by itself, p pauses, q ends"
	if manual {
		s.keys = "Enter looks for changes, " + s.keys
	}
	s.term.leave.afterwards(keyboard.Leave)
	return func() { end(); keyboard.Close() }, nil
}

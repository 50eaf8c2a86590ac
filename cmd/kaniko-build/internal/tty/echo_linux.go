package tty

import (
	"os"

	"golang.org/x/sys/unix"
)

// foreground tells whether f is a terminal whose foreground this process is in.
func foreground(f *os.File) bool {
	group, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// echo is how a terminal treated what is typed before silence.
type echo struct {
	f      *os.File
	before *unix.Termios // nil: it was left alone
}

// silence lets a terminal not show what is typed. Keys that make signals go on
// doing so.
func silence(f *os.File) *echo {
	e := &echo{f: f}
	e.again()
	return e
}

func (e *echo) again() {
	t, err := unix.IoctlGetTermios(int(e.f.Fd()), unix.TCGETS)
	if err != nil {
		return
	}
	before := *t
	t.Lflag &^= unix.ECHO | unix.ICANON
	if unix.IoctlSetTermios(int(e.f.Fd()), unix.TCSETS, t) == nil {
		e.before = &before
	}
}

// still sets the terminal again that something else has set in between. What it was
// before stays remembered.
func (e *echo) still() {
	before := e.before
	if e.again(); before != nil {
		e.before = before
	}
}

// restore puts the terminal as it was found.
func (e *echo) restore() {
	if e.before != nil {
		_ = unix.IoctlSetTermios(int(e.f.Fd()), unix.TCSETS, e.before)
		e.before = nil
	}
}

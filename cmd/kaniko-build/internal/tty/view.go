package tty

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/charmbracelet/colorprofile"
	"golang.org/x/sys/unix"

	"kaniko-build/cmd/kaniko-build/internal/progress"
)

const (
	patience = 150 * time.Millisecond // a run that is over earlier draws nothing
	redraw   = 100 * time.Millisecond
)

// View is the live view of a run. New makes it.
type View struct {
	out   *os.File
	env   []string
	stops *Stopper

	mu     sync.Mutex
	board  board
	timer  *time.Timer
	drawn  *drawing // nil while nothing is drawn
	closed bool
	let    func() // of stops; nil before anything was drawn
}

// drawing goes on until quit is closed, and has given the terminal back when over is.
type drawing struct {
	quit, over chan struct{}
	echo       *echo
}

// Fits tells whether a live view can be shown on a terminal: a person looks at
// it, and its kind can do more than print. A program in the background cannot.
func Fits(out *os.File, getenv func(string) string) bool {
	return getenv("TERM") != "dumb" && getenv("TERM") != "" && foreground(out)
}

// New makes the view for a terminal. env is the environment, which tells what
// the terminal can do: TERM, COLORTERM, NO_COLOR and the like. Nothing is drawn before
// a moment has passed.
func New(out *os.File, env []string, stops *Stopper) *View {
	v := &View{out: out, env: env, stops: stops, board: board{begun: time.Now()}}
	v.timer = time.AfterFunc(patience, v.appear)
	return v
}

// Event learns what happened; the next picture shows it.
func (v *View) Event(e progress.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		for _, l := range e.Late() {
			_, _ = fmt.Fprintln(v.out, l)
		}
		return
	}
	v.board.event(e)
}

// Focus shows one image by itself, with its log, while it runs; "" is none.
func (v *View) Focus(node string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.board.focus = node
}

// Next shows the next image by itself that runs or has failed, and after the last all of
// them. It tells which.
func (v *View) Next() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.board.next()
	return v.board.focus
}

// Stopping lets the picture say that the run was told to stop.
func (v *View) Stopping() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.board.doing = "stopping"
}

// appear begins to draw.
func (v *View) appear() {
	let := v.stops.hold(v.erase, v.draw)
	v.mu.Lock()
	closed := v.closed
	if !closed {
		v.let = let
	}
	v.mu.Unlock()
	if closed {
		let()
	}
}

// draw takes the terminal, if it is there to be taken.
func (v *View) draw() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || v.drawn != nil || !foreground(v.out) {
		return
	}
	v.drawn = &drawing{make(chan struct{}), make(chan struct{}), silence(v.out)}
	go v.show(v.drawn)
}

// show draws until it is told to end. A terminal that went away is no reason to fail a
// build.
func (v *View) show(d *drawing) {
	defer close(d.over)
	p := picture{out: v.out}
	defer func() { _ = p.clear() }()
	look := colours()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	next := time.NewTicker(redraw)
	defer next.Stop()
	lines, size := 0, unix.Winsize{}
	for {
		if now, err := unix.IoctlGetWinsize(int(v.out.Fd()), unix.TIOCGWINSZ); err == nil && now.Col > 0 && now.Row > 0 {
			if size.Col != now.Col || size.Row != now.Row {
				lines, size = 0, *now
				p.width = 0 // all anew, also if it is only flatter or higher
			}
			frame := v.frame(int(size.Col), int(size.Row), look, &lines)
			_ = p.draw(frame, int(size.Col))
		}
		select {
		case <-next.C:
		case <-resized:
		case <-d.quit:
			return
		}
	}
}

// frame is what is to be drawn. It does not shrink, by lines: what is below it would jump,
// and all of it be drawn anew.
func (v *View) frame(width, height int, look style, lines *int) []string {
	v.mu.Lock()
	text := v.board.frame(width, height, time.Now(), look)
	least := min(v.board.height(), height-1)
	v.mu.Unlock()
	var b bytes.Buffer
	w := colorprofile.Writer{Forward: &b, Profile: colorprofile.Env(v.env)}
	_, _ = w.WriteString(text) // a buffer takes all
	out := strings.Split(b.String(), "\n")
	*lines = max(*lines, len(out), least)
	return append(out, make([]string, *lines-len(out))...)
}

// erase takes the picture away and gives the terminal back.
func (v *View) erase() {
	v.mu.Lock()
	d := v.drawn
	v.drawn = nil
	v.mu.Unlock()
	if d != nil {
		close(d.quit)
		<-d.over
		d.echo.restore()
	}
}

// Close takes the picture away and prints the warnings. It may be called more
// than once.
func (v *View) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil
	}
	v.closed = true
	v.timer.Stop()
	let := v.let
	v.mu.Unlock()
	if let != nil {
		let()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.board.notices) > 0 {
		_, err := fmt.Fprintln(v.out, strings.Join(v.board.notices, "\n"))
		return err
	}
	return nil
}

// Leave gives the terminal back at once, for a program that ends now. It may be
// called at any time.
func (v *View) Leave() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.erase()
}

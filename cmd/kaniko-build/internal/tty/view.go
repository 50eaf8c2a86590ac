package tty

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"

	"kaniko-build/cmd/kaniko-build/internal/progress"
)

const (
	patience = 150 * time.Millisecond // a run that is over earlier draws nothing
	redraw   = 100 * time.Millisecond
)

// View is the live view of a run. New makes it.
type View struct {
	out *os.File
	env []string

	mu      sync.Mutex
	board   board
	timer   *time.Timer
	program *tea.Program  // nil while nothing is drawn
	over    chan struct{} // closed when program has ended
	closed  bool
	echo    *echo
	stops   chan os.Signal
	watched chan struct{} // closed when nobody waits for stops any more
}

// Fits tells whether a live view can be shown on a terminal: a person looks at
// it, and its kind can do more than print. A program in the background cannot.
func Fits(out *os.File, getenv func(string) string) bool {
	return getenv("TERM") != "dumb" && getenv("TERM") != "" && foreground(out)
}

// New makes the view for a terminal. env is the environment, which tells what
// the terminal can do: TERM, COLORTERM, NO_COLOR and the like. Nothing is drawn before
// a moment has passed.
func New(out *os.File, env []string) *View {
	v := &View{out: out, env: env, board: board{begun: time.Now()}}
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

// Stops tells whether the view gives the terminal back when the process is stopped. It
// does not before it draws.
func (v *View) Stops() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stops != nil && !v.closed
}

// appear begins to draw.
func (v *View) appear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.stops = make(chan os.Signal, 1)
	signal.Notify(v.stops, syscall.SIGTSTP)
	v.watched = make(chan struct{})
	go v.stopped(v.stops)
	v.draw()
}

// draw takes the terminal; v.mu is held.
func (v *View) draw() {
	if !foreground(v.out) {
		return
	}
	v.echo = silence(v.out)
	program := tea.NewProgram(model{v: v, lines: new(int)}, tea.WithInput(nil), tea.WithOutput(v.out), tea.WithEnvironment(v.env), tea.WithoutSignalHandler(), tea.WithFPS(30))
	over := make(chan struct{})
	v.program, v.over = program, over
	go func() {
		defer close(over)
		_, _ = program.Run() // a terminal that went away is no reason to fail a build
	}()
}

// erase takes the picture away and gives the terminal back; v.mu is not held.
func (v *View) erase() {
	v.mu.Lock()
	program, over, e := v.program, v.over, v.echo
	v.program = nil
	v.mu.Unlock()
	if program != nil {
		program.Send(quit{})
		<-over
		e.restore()
	}
}

// stopped waits for Ctrl-Z: the terminal is given back, and taken again when the
// program goes on. Go leaves no way to have the signal's own effect once it is
// notified of, hence the other one.
func (v *View) stopped(stops chan os.Signal) {
	defer close(v.watched)
	on := make(chan os.Signal, 1)
	for range stops {
		v.erase()
		signal.Notify(on, syscall.SIGCONT)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-on
		signal.Stop(on)
		v.mu.Lock()
		if !v.closed {
			v.draw()
		}
		v.mu.Unlock()
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
	stops := v.stops
	v.mu.Unlock()
	if stops != nil {
		signal.Stop(stops)
		close(stops)
		<-v.watched
	}
	v.erase()
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

// model is the view as bubbletea has it. It is drawn once its size is known.
type model struct {
	v             *View
	width, height int
	lines         *int // of the last picture
}

// tick asks for the next picture.
type tick struct{}

// quit ends the program with an empty picture.
type quit struct{}

func (m model) Init() tea.Cmd { return next() }

func next() tea.Cmd {
	return tea.Tick(redraw, func(time.Time) tea.Msg { return tick{} })
}

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		*m.lines = 0
	case tick:
		return m, next()
	case quit:
		m.height = 0
		return m, tea.Quit
	}
	return m, nil
}

func (m model) View() tea.View {
	out := tea.View{DisableBracketedPasteMode: true}
	if m.height > 0 {
		m.v.mu.Lock()
		defer m.v.mu.Unlock()
		frame := m.v.board.frame(m.width, m.height, time.Now(), colours())
		// A picture does not shrink: what is below it would jump, and all of it be
		// drawn anew.
		n := strings.Count(frame, "\n") + 1
		*m.lines = max(*m.lines, n, min(m.v.board.height(), m.height-1))
		out.SetContent(frame + strings.Repeat("\n", *m.lines-n))
	}
	return out
}

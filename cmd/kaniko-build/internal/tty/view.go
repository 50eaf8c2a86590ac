package tty

import (
	"fmt"
	"os"
	"strings"
	"sync"
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

// drawing is a picture on the terminal.
type drawing struct {
	program *tea.Program
	over    chan struct{} // closed when program has ended
	echo    *echo
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
	d := &drawing{over: make(chan struct{}), echo: silence(v.out)}
	d.program = tea.NewProgram(model{v: v, lines: new(int)}, tea.WithInput(nil), tea.WithOutput(v.out), tea.WithEnvironment(v.env), tea.WithoutSignalHandler(), tea.WithFPS(30))
	v.drawn = d
	go func() {
		defer close(d.over)
		_, _ = d.program.Run() // a terminal that went away is no reason to fail a build
	}()
}

// erase takes the picture away and gives the terminal back.
func (v *View) erase() {
	v.mu.Lock()
	d := v.drawn
	v.drawn = nil
	v.mu.Unlock()
	if d != nil {
		d.program.Send(quit{})
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

package tty

import (
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// picture is lines on a terminal, of which nothing stays behind whatever becomes of the
// terminal's size. Where the picture begins a terminal alone knows: one that becomes narrower folds
// the lines that are too long now, pushes what has no room off its upper edge, and may do
// so between any two bytes of what is sent to it. tmux tells of it a quarter of a
// second later. But it takes the cursor along with the text that it stands on. So the
// cursor is left on the beginning itself, unseen, and goes away from it only
//
//   - over lines that are empty, and cannot be folded, when all is drawn;
//   - in between saving and restoring its place, when a little has changed: so little that
//     it comes to the terminal in one piece.
//
// To draw all, each line is inserted there, the last one first, and each line from its end
// to its beginning in short pieces: the cursor never stands where a line might be folded.
// Lines are cut, not folded, by what is drawn while the terminal changes.
type picture struct {
	out   io.Writer
	width int
	shown [][]cell // by line; nil if nothing is drawn
}

// cell is a character on the terminal: its text, columns and style, as escape sequences.
type cell struct {
	text  string
	width int
	style string
}

// piece is how far from the left edge the cursor goes while all is drawn, in columns.
const piece = 20

const (
	takeScreen = "\x1b[?25l\x1b[?7l" // no cursor, lines are cut
	giveScreen = "\x1b[?7h\x1b[?25h"

	// clearBelow empties the cursor's line and all below. The line is a new one, as one
	// that was folded stays marked in tmux and would be joined with the next. And what is
	// cleared from the upper left corner of the screen goes to what can be scrolled back
	// to; from the second column it does not.
	clearBelow = toLeft + "\x1b[L\x1b[C\x1b[J" + toLeft

	// A carriage return or a line feed would be as good, but terminals' drivers pass on what
	// is written in parts that end with one, and a terminal may change between them.
	toLeft = "\x1b[G"
	down   = "\x1bD" // at the lower edge all moves up

	beginSync, endSync = "\x1b[?2026h", "\x1b[?2026l" // show nothing in between, where that is known
	saveCursor         = "\x1b7"
	restoreCursor      = "\x1b8"
)

// draw shows lines, none of which is wider than width.
func (p *picture) draw(lines []string, width int) error {
	next := make([][]cell, len(lines))
	for i, l := range lines {
		next[i] = cells(l)
	}
	var b strings.Builder
	switch {
	case p.shown == nil:
		b.WriteString(takeScreen)
		fallthrough
	case width != p.width || len(next) != len(p.shown):
		all(&b, next)
	default:
		changes(&b, p.shown, next)
	}
	p.width, p.shown = width, next
	return p.send(b.String())
}

// clear takes the picture away and gives the terminal back: the cursor is where the
// picture began.
func (p *picture) clear() error {
	if p.shown == nil {
		return nil
	}
	p.shown = nil
	return p.send(clearBelow + giveScreen)
}

func (p *picture) send(s string) error {
	if s == "" {
		return nil
	}
	_, err := io.WriteString(p.out, s)
	return err
}

// all draws everything, with the cursor on the beginning.
func all(b *strings.Builder, lines [][]cell) {
	b.WriteString(beginSync + clearBelow)
	if n := len(lines) - 1; n > 0 { // make room
		b.WriteString(strings.Repeat(down, n) + ansi.CursorUp(n))
	}
	for i, line := range slices.Backward(lines) {
		if i < len(lines)-1 {
			b.WriteString(ansi.InsertLine(1))
		}
		for end := len(line); end > 0; {
			begin, columns := end, 0
			for begin > 0 && (begin == end || columns+line[begin-1].width <= piece) {
				begin--
				columns += line[begin].width
			}
			b.WriteString(ansi.InsertCharacter(columns))
			text(b, line[begin:end])
			b.WriteString(toLeft)
			end = begin
		}
	}
	b.WriteString(endSync)
}

// changes draws what is other in next than in shown, which have as many lines.
func changes(b *strings.Builder, shown, next [][]cell) {
	at := 0
	for i, to := range next {
		from := shown[i]
		if slices.Equal(from, to) {
			continue
		}
		same := 0
		for same < min(len(from), len(to)) && from[same] == to[same] {
			same++
		}
		end, rest := len(to), columns(from)-columns(to)
		if rest == 0 {
			for k := len(from); end > same && k > same && from[k-1] == to[end-1]; k-- {
				end--
			}
		}
		if at == 0 && b.Len() == 0 {
			b.WriteString(saveCursor)
		}
		if i > at {
			b.WriteString(ansi.CursorDown(i - at))
			at = i
		}
		if n := columns(to[:same]); n > 0 {
			b.WriteString(ansi.CursorForward(n))
		}
		text(b, to[same:end])
		if rest > 0 {
			b.WriteString(ansi.EraseLineRight)
		}
		b.WriteString(toLeft)
	}
	if b.Len() > 0 {
		b.WriteString(restoreCursor)
	}
}

// text writes cells where the cursor stands.
func text(b *strings.Builder, line []cell) {
	style := ""
	for _, c := range line {
		if c.style != style {
			if style != "" {
				b.WriteString(ansi.ResetStyle)
			}
			b.WriteString(c.style)
			style = c.style
		}
		b.WriteString(c.text)
	}
	if style != "" {
		b.WriteString(ansi.ResetStyle)
	}
}

func columns(line []cell) (n int) {
	for _, c := range line {
		n += c.width
	}
	return n
}

// cells reads a line with its styles. Whatever else it holds that takes no column is left
// out.
func cells(line string) []cell {
	out := []cell{}
	style := ""
	for state := byte(0); line != ""; {
		seq, width, n, next := ansi.DecodeSequence(line, state, nil)
		switch {
		case width > 0:
			out = append(out, cell{seq, width, style})
		case seq == ansi.ResetStyle || seq == "\x1b[0m":
			style = ""
		case ansi.HasCsiPrefix(seq) && strings.HasSuffix(seq, "m"):
			style += seq
		}
		line, state = line[n:], next
	}
	return out
}

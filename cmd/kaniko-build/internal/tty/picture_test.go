package tty

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
)

// screen is a terminal as far as a picture uses it: lines are cut.
type screen struct {
	rows       [][]string // "" is an empty cell
	x, y       int
	sx, sy     int // saved
	scrolledBy int
}

func newScreen(width, height, y int) *screen {
	s := &screen{y: y}
	for range height {
		s.rows = append(s.rows, make([]string, width))
	}
	return s
}

func (s *screen) Write(b []byte) (int, error) {
	width := len(s.rows[0])
	p := ansi.NewParser()
	for rest, state := string(b), byte(0); rest != ""; {
		seq, w, n, next := ansi.DecodeSequence(rest, state, p)
		rest, state = rest[n:], next
		k := 1
		if ansi.HasCsiPrefix(seq) {
			if given, err := strconv.Atoi(strings.Trim(seq, "\x1b[ABCLJK@")); err == nil {
				k = given
			}
		}
		switch {
		case w > 0:
			s.rows[s.y][min(s.x, width-1)] = seq
			s.x = min(s.x+w, width-1)
		case seq == toLeft:
			s.x = 0
		case seq == down:
			if s.y == len(s.rows)-1 {
				s.rows = append(s.rows[1:], make([]string, width))
				s.scrolledBy++
			} else {
				s.y++
			}
		case seq == "\x1b7":
			s.sx, s.sy = s.x, s.y
		case seq == "\x1b8":
			s.x, s.y = s.sx, s.sy
		case strings.HasSuffix(seq, "A"):
			s.y = max(0, s.y-k)
		case strings.HasSuffix(seq, "B"):
			s.y = min(len(s.rows)-1, s.y+k)
		case strings.HasSuffix(seq, "C"):
			s.x = min(width-1, s.x+k)
		case strings.HasSuffix(seq, "L"):
			s.rows = slices.Insert(s.rows, s.y, make([]string, width))
			s.rows = s.rows[:len(s.rows)-1]
			s.x = 0
		case strings.HasSuffix(seq, "@"):
			row := s.rows[s.y]
			copy(row[min(width, s.x+k):], slices.Clone(row[s.x:]))
			clear(row[s.x:min(width, s.x+k)])
		case strings.HasSuffix(seq, "K"):
			clear(s.rows[s.y][s.x:])
		case strings.HasSuffix(seq, "J"):
			clear(s.rows[s.y][s.x:])
			for _, row := range s.rows[s.y+1:] {
				clear(row)
			}
		}
	}
	return len(b), nil
}

func (s *screen) text() []string {
	var out []string
	for _, row := range s.rows {
		line := ""
		for _, c := range row {
			if c == "" {
				c = " "
			}
			line += c
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

// A screen shows the lines that were drawn last, from where the cursor was, and the
// cursor is there again; what is above is as it was.
func TestPictureShowsWhatIsDrawn(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		width, height := 20+random.IntN(60), 5+random.IntN(20)
		s := newScreen(width, height, random.IntN(height))
		s.rows[0][0] = "#"
		if s.y == 0 {
			s.rows[0][0] = ""
		}
		p := picture{out: s}
		n := 1 + random.IntN(height-1)
		for range 8 {
			if random.IntN(4) == 0 {
				n = 1 + random.IntN(height-1)
			}
			var lines, want []string
			for range n {
				line, bare := "", ""
				for ansi.StringWidth(bare) < random.IntN(width+1) {
					c := string("ab─ ━⠋"[:1])
					if random.IntN(3) == 0 {
						c = "━"
					}
					bare += c
					if random.IntN(3) == 0 {
						c = "\x1b[1;31m" + c + "\x1b[m"
					}
					line += c
				}
				lines, want = append(lines, line), append(want, bare)
			}
			if err := p.draw(lines, width); err != nil {
				t.Fatal(err)
			}
			got := s.text()[s.y:]
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("line %d of %d is %q, want %q", i, n, got[i], want[i])
				}
			}
			if extra := strings.Join(got[n:], ""); extra != "" || s.x != 0 {
				t.Fatalf("below is %q, the cursor is in column %d", extra, s.x)
			}
		}
		if err := p.clear(); err != nil {
			t.Fatal(err)
		}
		if rest := strings.Join(s.text(), ""); s.scrolledBy == 0 && rest != "#" && rest != "" || s.scrolledBy > 0 && rest != "" {
			t.Fatalf("%q is left", rest)
		}
	}
}

// What does not change is not sent again.
func TestPictureSendsDifferences(t *testing.T) {
	var out strings.Builder
	p := picture{out: &out}
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{"one", "\x1b[1mtwo\x1b[m three", ""}, ""},
		{[]string{"one", "\x1b[1mtwo\x1b[m three", ""}, ""},
		{[]string{"one", "\x1b[1mtwo\x1b[m thxee", ""}, "\x1b7\x1b[B\x1b[6Cx\x1b[G\x1b8"},
		{[]string{"on", "\x1b[1mtwo\x1b[m thxee", "four"}, "\x1b7\x1b[2C\x1b[K\x1b[G\x1b[2Bfour\x1b[G\x1b8"},
	} {
		out.Reset()
		first := p.shown == nil
		if err := p.draw(c.lines, 80); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !first && got != c.want {
			t.Errorf("%q sends %q, want %q", c.lines, got, c.want)
		}
	}
}

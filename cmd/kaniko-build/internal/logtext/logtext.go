// Package logtext makes text that others wrote fit to be shown: what a RUN
// prints, a Dockerfile says or a registry answers steers neither the terminal
// nor the CI that prints our log.
//
//	output of a step --Line--> one line: no escape codes, no commands of a CI
//
// It changes as little as that takes, so that what was printed can be read, and
// leaves ordinary text as it is. It does not decide what is shown or where.
package logtext

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Line is one line of a log, without its end, as it may be printed:
//
//   - Escape sequences (colours, cursor, titles, hyperlinks) go away whole.
//   - Of a line that a carriage return begins anew, as progress bars do, the last
//     version stays.
//   - Other control characters, marks that turn the direction of writing, line
//     ends of Unicode and bytes that are no text become U+FFFD. Tabs stay.
//   - What a CI reads as a command is broken by a space: "::" where the line
//     begins, and "##[", "##vso[" and "##teamcity[" anywhere in it.
//
// A line end within s becomes a space. The result is the same when it is given
// to Line again.
func Line(s string) string {
	if plain(s) {
		return s
	}
	s = withoutEscapes(s)
	s = lastVersion(s)
	s = strings.Map(visible, strings.ToValidUTF8(s, "\uFFFD"))
	return withoutCommands(s)
}

// Lines is a text of several lines, each as Line has it.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = Line(l)
	}
	return strings.Join(lines, "\n")
}

// plain tells whether there is nothing to do, as is so for most lines.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c >= 0x7f || c == '#' || c == ':' {
			return false
		}
	}
	return true
}

// withoutEscapes takes escape sequences away, as ECMA-48 writes them: ESC and
// what belongs to it, in both their forms. One that does not end takes
// the rest of the line, as it would on a terminal.
func withoutEscapes(s string) string {
	if !strings.ContainsRune(s, 0x1b) && !strings.ContainsRune(s, 0x9b) && !strings.ContainsRune(s, 0x9d) &&
		!strings.ContainsRune(s, 0x90) && !strings.ContainsRune(s, 0x98) && !strings.ContainsRune(s, 0x9e) && !strings.ContainsRune(s, 0x9f) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == 0x1b && i+1 < len(s) && s[i+1] >= 0x40 && s[i+1] <= 0x5f { // the 7-bit form of a C1 control
			r, n = rune(s[i+1])+0x40, 2
		}
		switch r {
		case 0x9b: // CSI: parameters, then one final byte
			i += n
			for i < len(s) && s[i] >= 0x20 && s[i] < 0x40 {
				i++
			}
			if i < len(s) && s[i] >= 0x40 && s[i] < 0x7f {
				i++
			}
		case 0x90, 0x98, 0x9d, 0x9e, 0x9f: // DCS, SOS, OSC, PM, APC: a string up to BEL or ST
			i += n
			i += stringEnd(s[i:])
		case 0x1b: // others: intermediate bytes, then a final one
			i++
			for i < len(s) && s[i] >= 0x20 && s[i] < 0x30 {
				i++
			}
			if i < len(s) && s[i] >= 0x30 && s[i] < 0x7f {
				i++
			}
		default:
			if r >= 0x80 && r < 0xa0 {
				i += n
				continue
			}
			b.WriteString(s[i : i+n])
			i += n
		}
	}
	return b.String()
}

// stringEnd is where a control string ends, its terminator included.
func stringEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == 0x07:
			return i + 1
		case s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\':
			return i + 2
		case s[i] == 0xc2 && i+1 < len(s) && s[i+1] == 0x9c:
			return i + 2
		}
	}
	return len(s)
}

// lastVersion is what stands after the last carriage return that something
// follows.
func lastVersion(s string) string {
	s = strings.TrimRight(s, "\r")
	return s[strings.LastIndexByte(s, '\r')+1:]
}

func visible(r rune) rune {
	switch {
	case r == '\t':
		return r
	case r == '\n':
		return ' '
	case r < 0x20, r >= 0x7f && r < 0xa0, // controls
		r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, // directions
		r == 0x2028, r == 0x2029, r == 0xfeff, r >= 0xe0000 && r <= 0xe007f: // line ends, and what nobody sees
		return utf8.RuneError
	}
	return r
}

// marks are what CIs look for anywhere in a line, in any case.
var marks = []string{"##[", "##vso[", "##teamcity["}

func withoutCommands(s string) string {
	if rest := strings.TrimLeftFunc(s, unicode.IsSpace); strings.HasPrefix(rest, "::") {
		at := len(s) - len(rest) + 1
		s = s[:at] + " " + s[at:]
	}
	for _, m := range marks {
		for from := 0; ; {
			i := indexFold(s[from:], m)
			if i < 0 {
				break
			}
			from += i + 1 // between the two #
			s = s[:from] + " " + s[from:]
		}
	}
	return s
}

// indexFold is strings.Index without regard to the case of ASCII letters.
func indexFold(s, lower string) int {
	for i := 0; i+len(lower) <= len(s); i++ {
		if s[i] == lower[0] && strings.EqualFold(s[i:i+len(lower)], lower) {
			return i
		}
	}
	return -1
}

// OneLine is the first line of an instruction, cut to fit a log.
func OneLine(s string) string {
	line, rest, more := strings.Cut(s, "\n")
	more = more && strings.TrimSpace(rest) != ""
	line = Line(line)
	if r := []rune(line); len(r) > 120 {
		line, more = string(r[:120]), true
	}
	if more {
		line += " …"
	}
	return line
}

// Seconds is a time for people: 12ms, 3.4s, 2m05s, 1h02m.
func Seconds(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// Size is a number of bytes for people.
func Size(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, exp := float64(n)/unit, 0
	for f >= unit && exp < 3 {
		f, exp = f/unit, exp+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGT"[exp])
}

// Package diag is how we answer mistakes in what users wrote: what is wrong,
// where, and what to do about it.
//
//	checks --Problem--> List --Err--> one error that prints all of them, sorted
//
// A Problem that knows no position prints without one; a List sorts by file,
// line and column, so that the order of the checks never shows.
package diag

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Pos is a place in a text file. Line and Col start at 1; 0 is unknown.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"` // in bytes
}

// String is "file:line:col" without the parts that are not known.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
}

// Compare orders positions by file, line and column.
func (p Pos) Compare(q Pos) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Col, q.Col))
}

// Problem is one mistake of a user.
type Problem struct {
	Pos  Pos
	What string // one sentence, lower case, no full stop
	Hint string // what to do; may be empty
}

// Error prints the position and what is wrong, and the hint on a second line.
func (p *Problem) Error() string {
	var b strings.Builder
	if s := p.Pos.String(); s != "" {
		b.WriteString(s)
		b.WriteString(": ")
	}
	b.WriteString(p.What)
	if p.Hint != "" {
		b.WriteString("\n  hint: ")
		b.WriteString(p.Hint)
	}
	return b.String()
}

// List collects the problems of a whole file. The zero value is ready.
type List struct{ problems []*Problem }

// Add records a problem at pos. The hint may be empty.
func (l *List) Add(pos Pos, hint, format string, args ...any) {
	l.problems = append(l.problems, &Problem{Pos: pos, What: fmt.Sprintf(format, args...), Hint: hint})
}

// AddErr records err: each Problem in it by itself, any other error as one at pos.
// A nil error adds nothing.
func (l *List) AddErr(pos Pos, err error) {
	var many Problems
	var one *Problem
	switch {
	case err == nil:
	case errors.As(err, &many):
		l.problems = append(l.problems, many...)
	case errors.As(err, &one):
		l.problems = append(l.problems, one)
	default:
		l.problems = append(l.problems, &Problem{Pos: pos, What: err.Error()})
	}
}

// Len is the number of problems so far.
func (l *List) Len() int { return len(l.problems) }

// Err is nil without problems, else a Problems with all of them, sorted, each once.
func (l *List) Err() error {
	if len(l.problems) == 0 {
		return nil
	}
	out := slices.Clone(l.problems)
	slices.SortStableFunc(out, func(a, b *Problem) int {
		return cmp.Or(a.Pos.Compare(b.Pos), cmp.Compare(a.What, b.What))
	})
	return Problems(slices.CompactFunc(out, func(a, b *Problem) bool { return *a == *b }))
}

// Problems is an error made of several; it prints one after the other, and a hint that
// several have in a row once, after the last of them.
type Problems []*Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Error()
		if i+1 < len(p) && one.Hint == p[i+1].Hint { // it comes once, after the last
			lines[i] = (&Problem{Pos: one.Pos, What: one.What}).Error()
		}
	}
	return strings.Join(lines, "\n")
}

// Suggest is `did you mean "x"?` for the name that is nearest to got, or
// nothing when none is near.
func Suggest(got string, names []string) string {
	best, dist := "", 3
	if len(got) < 4 {
		dist = 2
	}
	for _, n := range slices.Sorted(slices.Values(names)) {
		if strings.HasSuffix(n, "/"+got) && got != "" { // without its prefix
			best = n
			break
		}
		if d := levenshtein.Distance(strings.ToLower(got), strings.ToLower(n), nil); d < dist && d < len(n) {
			best, dist = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

package report

import (
	"fmt"
	"strings"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
)

// How much of the output of one step is kept, and of all that in one page: the
// beginning, and more of the end.
const (
	headBytes = 8 << 10
	tailBytes = 24 << 10
	shortTail = 2 << 10  // of steps that went well, once there is too much
	allBytes  = 16 << 20 // in one page
)

// output keeps the two ends of what a step prints. The zero value is empty.
type output struct {
	head, tail []byte
	cut        int64 // bytes between them
}

func (o *output) add(s string) {
	if n := min(headBytes-len(o.head), len(s)); n > 0 && o.cut == 0 && len(o.tail) == 0 {
		o.head = append(o.head, s[:n]...)
		s = s[n:]
	}
	o.tail = append(o.tail, s...)
	if extra := len(o.tail) - tailBytes; extra > tailBytes { // moved now and then only
		o.cut += int64(extra)
		o.tail = append(o.tail[:0], o.tail[extra:]...)
	}
}

// text is what is shown of the output, most bytes of it, fit to be read.
func (o *output) text(most int) string {
	head, tail, cut := o.head, o.tail, o.cut
	if extra := len(tail) - max(most-len(head), tailBytes); extra > 0 && most > shortTail {
		cut, tail = cut+int64(extra), tail[extra:]
	}
	if most <= shortTail && len(head)+len(tail) > most {
		all := append(append([]byte(nil), head...), tail...)
		cut += int64(len(all) - most)
		head, tail = nil, all[len(all)-most:]
	}
	s := string(head)
	if cut > 0 {
		if s != "" && !strings.HasSuffix(s, "\n") {
			s += "…\n"
		}
		s += fmt.Sprintf("… %s left out …\n", logtext.Size(cut))
	}
	return logtext.Lines(strings.TrimRight(s+string(tail), "\n"))
}

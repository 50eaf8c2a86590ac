package livepage

// How much is remembered.
const (
	maxMessages = 4096
	maxBytes    = 4 << 20 // of messages
	maxLines    = 1000    // of the log of one node
	maxLogBytes = 64 << 10
	maxLine     = 4 << 10 // bytes
	maxBuilds   = 50
	maxListed   = 30 // nodes of one build
)

// message is one server-sent event.
type message struct {
	kind string
	data []byte // JSON, without line ends
}

// feed is the last messages. They are numbered from 1; the zero value is empty.
type feed struct {
	last  uint64 // number of the last one
	list  []message
	bytes int
}

// add appends a message, for which old ones may have to go.
func (f *feed) add(m message) {
	f.last++
	f.list, f.bytes = append(f.list, m), f.bytes+len(m.data)
	for len(f.list) > maxMessages || f.bytes > maxBytes {
		f.bytes -= len(f.list[0].data)
		f.list[0] = message{} // its bytes go now, its place when the list moves
		f.list = f.list[1:]
	}
}

// since is what came after a number; ok is false if some of that is gone, or never was.
func (f *feed) since(n uint64) (list []message, ok bool) {
	first := f.last - uint64(len(f.list)) // the number before the list
	if n < first || n > f.last {
		return nil, false
	}
	return f.list[n-first:], true
}

// ring is the last lines of a log. They are numbered from 1; the zero value is empty.
type ring struct {
	last  uint64 // number of the last one
	lines []string
	bytes int
}

func (r *ring) add(line string) {
	if len(line) > maxLine {
		line = line[:maxLine] + "…" // JSON makes half a letter a mark
	}
	r.last++
	r.lines, r.bytes = append(r.lines, line), r.bytes+len(line)
	for len(r.lines) > maxLines || r.bytes > maxLogBytes {
		r.bytes -= len(r.lines[0])
		r.lines[0] = ""
		r.lines = r.lines[1:]
	}
}

// since is the lines after a number, and how many between are gone.
func (r *ring) since(n uint64) (lines []string, gone uint64) {
	first := r.last - uint64(len(r.lines))
	if n > r.last { // of a ring that is gone
		n = 0
	}
	if n < first {
		return r.lines, first - n
	}
	return r.lines[n-first:], 0
}

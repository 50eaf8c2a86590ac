package progress

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
)

// Logs writes the log of each node to a file of its own, dir/NODE.log, as it
// comes. Files of earlier runs are replaced; what is in dir otherwise stays.
// Close returns the first error of a write.
func Logs(dir string) (View, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of logs: %w", err)
	}
	return &logs{dir: dir, files: map[string]*logFile{}, begun: map[string]bool{}}, nil
}

type logs struct {
	dir string

	mu    sync.Mutex
	files map[string]*logFile // that are open
	begun map[string]bool     // nodes that have a file
	err   error
	told  bool // err is, to who closed the view
}

type logFile struct {
	f *os.File
	w *bufio.Writer
}

// LogName is the name of a node's file. It is another one for each node: names
// hold neither "%" nor, before a platform, "/".
func LogName(node string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F", "\x00", "%00").Replace(node) + ".log"
}

func (l *logs) Event(e Event) {
	if e.Node == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	lines := e.Lines()
	if o := e.Outcome(); o != "" {
		if e.Text != "" {
			o += ": " + strings.ReplaceAll(logtext.Lines(e.Text), "\n", "\n    ")
		}
		lines = append(lines, o)
	}
	if len(lines) > 0 {
		l.write(e, lines)
	}
	switch e.Kind {
	case NodeDone, NodeFailed, NodeSkipped:
		l.close(e.Node)
	}
}

func (l *logs) write(e Event, lines []string) {
	f := l.files[e.Node]
	if f == nil {
		how := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
		if l.begun[e.Node] { // more came after its end
			how = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		}
		file, err := os.OpenFile(filepath.Join(l.dir, LogName(e.Node)), how, 0o644)
		if err != nil {
			l.err = err
			return
		}
		f = &logFile{file, bufio.NewWriter(file)}
		l.files[e.Node], l.begun[e.Node] = f, true
	}
	for _, line := range lines {
		fmt.Fprintf(f.w, "%s %s\n", e.Time.Format("15:04:05.000"), line) // a Writer keeps its error for Flush
	}
}

func (l *logs) close(node string) {
	if f := l.files[node]; f != nil {
		l.err = errors.Join(l.err, f.w.Flush(), f.f.Close())
		delete(l.files, node)
	}
}

func (l *logs) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for node := range l.files {
		l.close(node)
	}
	err := l.err
	if err != nil && !l.told {
		l.told = true // a view may be closed again
		return fmt.Errorf("write the logs of nodes: %w", err)
	}
	return nil
}

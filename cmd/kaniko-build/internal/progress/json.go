package progress

import (
	"encoding/json"
	"io"
	"sync"
)

// JSON prints each event as one JSON object a line.
func JSON(w io.Writer) View { return &jsonLines{w: w} }

type jsonLines struct {
	mu sync.Mutex
	w  io.Writer
}

func (j *jsonLines) Event(e Event) {
	b, err := json.Marshal(e)
	if err != nil {
		return // an Event is plain data; its strings always encode
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = j.w.Write(append(b, '\n')) // nobody is left to tell when the output is closed
}

func (j *jsonLines) Close() error { return nil }

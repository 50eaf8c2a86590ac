package progress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// inMemory is how much of a node's log waits in memory; a build that prints more
// has the rest in a file without a name.
const inMemory = 256 << 10

// spool keeps text until it is printed. The zero value is empty.
type spool struct {
	head bytes.Buffer
	rest *os.File // nil until head is full
	err  error    // the first one; what came afterwards is lost
}

func (s *spool) add(text string) {
	switch {
	case s.err != nil:
	case s.rest != nil:
		_, s.err = s.rest.WriteString(text)
	case s.head.Len()+len(text) <= inMemory:
		s.head.WriteString(text)
	default:
		if s.rest, s.err = os.CreateTemp("", "kaniko-build-log-*"); s.err == nil {
			s.err = os.Remove(s.rest.Name())
			s.add(text)
		}
	}
}

// flush moves all to w and empties the spool.
func (s *spool) flush(w io.Writer) error {
	_, err := s.head.WriteTo(w)
	if s.rest != nil {
		if _, seek := s.rest.Seek(0, io.SeekStart); seek != nil {
			err = errors.Join(err, seek)
		} else if _, copied := io.Copy(w, s.rest); copied != nil {
			err = errors.Join(err, copied)
		}
		err = errors.Join(err, s.rest.Close())
	}
	if s.err != nil {
		_, said := fmt.Fprintf(w, "warning: the rest of the log is lost: %v\n", s.err)
		err = errors.Join(err, said)
	}
	*s = spool{}
	return err
}

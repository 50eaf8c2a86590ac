package dockerfile

import (
	"bytes"
	"crypto/sha256"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Syntaxes remembers what texts consist of, so that many Dockerfiles with the same
// text, or one that is read again with other arguments, are taken apart once. The zero
// value remembers nothing yet. It may be used from many goroutines.
type Syntaxes struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]*parser.Result
}

const maxSyntaxes = 256 // texts

// parse runs BuildKit's parser. The result is shared: it is not to be changed.
func (s *Syntaxes) parse(text []byte) (*parser.Result, error) {
	if s == nil {
		return parser.Parse(bytes.NewReader(text))
	}
	sum := sha256.Sum256(text)
	s.mu.Lock()
	res := s.known[sum]
	s.mu.Unlock()
	if res != nil {
		return res, nil
	}
	res, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxSyntaxes {
		s.known = map[[sha256.Size]byte]*parser.Result{}
	}
	s.known[sum] = res
	return res, nil
}

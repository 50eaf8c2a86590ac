package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// The channels of a remote command: the first byte of each message says which one the
// others are of.
const (
	channelIn  = 0
	channelOut = 1
	channelErr = 2
	channelEnd = 3 // a Status says how the command ended
)

// execPart is the most that one message holds; servers differ in what they take.
const execPart = 32 << 10

// stream is the standard input and output of a command in a pod.
type stream struct {
	ws     *websocket.Conn
	ctx    context.Context // of the connection
	cancel context.CancelFunc

	in io.Reader // the rest of a message

	mu   sync.Mutex // of what follows, and one message at a time
	out  []byte
	tail []byte // the end of standard error, and how the command ended
}

// exec runs a command in a pod. The command ends when the connection is closed.
func (k *client) exec(ctx context.Context, name string, command []string) (*stream, error) {
	q := url.Values{"container": {containerName}, "command": command, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
	dial, stop := context.WithTimeout(ctx, callTime)
	defer stop()
	ws, res, err := websocket.Dial(dial, k.config.server+k.pods(name)+"/exec?"+q.Encode(), &websocket.DialOptions{
		HTTPClient: k.http, Subprotocols: []string{"v5.channel.k8s.io", "v4.channel.k8s.io"},
	})
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			return nil, refusal(res)
		}
		return nil, err
	}
	ws.SetReadLimit(-1)
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &stream{ws: ws, ctx: lasting, cancel: cancel}, nil
}

// Read reads standard output.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.in != nil {
			n, err := s.in.Read(p)
			if errors.Is(err, io.EOF) {
				s.in, err = nil, nil
			}
			if n > 0 || err != nil {
				return n, err
			}
		}
		_, r, err := s.ws.Reader(s.ctx)
		if err != nil {
			if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
				return 0, io.EOF
			}
			return 0, fmt.Errorf("the connection to the pod: %w", err)
		}
		var channel [1]byte
		if _, err := io.ReadFull(r, channel[:]); err != nil {
			if errors.Is(err, io.EOF) {
				continue // an empty message
			}
			return 0, err
		}
		switch channel[0] {
		case channelOut:
			s.in = r
		case channelErr, channelEnd:
			b, err := io.ReadAll(r)
			if err != nil {
				return 0, err
			}
			s.note(channel[0], b)
		default:
			if _, err := io.Copy(io.Discard, r); err != nil {
				return 0, err
			}
		}
	}
}

func (s *stream) note(channel byte, b []byte) {
	if channel == channelEnd {
		var e struct{ Status, Message string }
		if json.Unmarshal(b, &e) != nil || e.Status == "Success" {
			return
		}
		b = []byte(e.Message + "\n")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = append(s.tail, b...)
	s.tail = s.tail[max(0, len(s.tail)-4096):]
}

// said is the end of what came on standard error.
func (s *stream) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.tail)
}

// Write writes to standard input.
func (s *stream) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		part := p[:min(len(p), execPart)]
		s.out = append(append(s.out[:0], channelIn), part...)
		if err := s.ws.Write(s.ctx, websocket.MessageBinary, s.out); err != nil {
			return n, fmt.Errorf("the connection to the pod: %w", err)
		}
		n, p = n+len(part), p[len(part):]
	}
	return n, nil
}

// Close ends the command.
func (s *stream) Close() error {
	s.cancel()
	return s.ws.CloseNow()
}

func (s *stream) LocalAddr() net.Addr  { return &net.UnixAddr{Name: "here", Net: "exec"} }
func (s *stream) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "pod", Net: "exec"} }

// Deadlines are not kept: who gives up closes.
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

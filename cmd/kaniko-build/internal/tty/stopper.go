package tty

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// Stopper stops this process by Ctrl-Z for all that have the terminal: they give it back,
// the process stops once, and they take it again when it goes on. A process has one of
// them at most, as who is notified of the signal has to stop by hand: Go leaves no way to
// have the signal's own effect as well. The zero value is ready.
type Stopper struct {
	mu      sync.Mutex
	holders []*holder // as they came
	signals chan os.Signal
	over    chan struct{} // closed when nobody waits for signals any more
}

// holder has the terminal: give gives it back, take takes it again. Both may be called
// when it has let go, take also when it has not given.
type holder struct{ give, take func() }

// hold makes give and take be called until let is. let waits for a stop that has begun.
func (s *Stopper) hold(give, take func()) (let func()) {
	h := &holder{give, take}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders = append(s.holders, h)
	if s.signals == nil {
		s.signals, s.over = make(chan os.Signal, 4), make(chan struct{})
		signal.Notify(s.signals, syscall.SIGTSTP, syscall.SIGCONT)
		go s.wait(s.signals, s.over)
	}
	return func() { s.let(h) }
}

func (s *Stopper) let(h *holder) {
	s.mu.Lock()
	s.holders = slices.DeleteFunc(s.holders, func(o *holder) bool { return o == h })
	if len(s.holders) > 0 || s.signals == nil {
		s.mu.Unlock()
		return
	}
	signals, over := s.signals, s.over
	s.signals = nil
	s.mu.Unlock()
	signal.Stop(signals)
	close(signals) // what came before still counts
	<-over
}

// all are the holders, as they came.
func (s *Stopper) all() []*holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.holders)
}

// wait stops the process when it is asked to.
func (s *Stopper) wait(signals chan os.Signal, over chan struct{}) {
	defer close(over)
	on := make(chan os.Signal, 1)
	for sig := range signals {
		if sig == syscall.SIGTSTP {
			for _, h := range slices.Backward(s.all()) {
				h.give()
			}
			signal.Notify(on, syscall.SIGCONT)
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			<-on
			signal.Stop(on)
			for range len(signals) { // further ones were for the same stop
				<-signals
			}
		}
		for _, h := range s.all() {
			h.take()
		}
	}
}

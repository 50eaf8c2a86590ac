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
	// turn is held while the terminal changes hands, and from before a stop until all have
	// taken it again: each finds it as the one before him left it.
	turn    sync.Mutex
	holders []*holder // as they came
	signals chan os.Signal
	over    chan struct{} // closed when nobody waits for signals any more
}

// holder has the terminal: give gives it back, take takes it again. Each may be called
// when there is nothing to do.
type holder struct{ give, take func() }

// hold takes the terminal until let is called, which gives it back, and waits for a stop
// that has begun, as hold does.
func (s *Stopper) hold(give, take func()) (let func()) {
	h := &holder{give, take}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.holders = append(s.holders, h)
	if s.signals == nil {
		s.signals, s.over = make(chan os.Signal, 4), make(chan struct{})
		signal.Notify(s.signals, syscall.SIGTSTP, syscall.SIGCONT)
		go s.wait(s.signals, s.over)
	}
	take()
	return func() { s.let(h) }
}

func (s *Stopper) let(h *holder) {
	s.turn.Lock()
	h.give()
	s.holders = slices.DeleteFunc(s.holders, func(o *holder) bool { return o == h })
	if len(s.holders) > 0 || s.signals == nil {
		s.turn.Unlock()
		return
	}
	signals, over := s.signals, s.over
	s.signals = nil
	s.turn.Unlock()
	signal.Stop(signals)
	close(signals) // what came before still counts
	<-over
}

// wait stops the process when it is asked to.
func (s *Stopper) wait(signals chan os.Signal, over chan struct{}) {
	defer close(over)
	for sig := range signals {
		s.handle(sig, signals)
	}
}

func (s *Stopper) handle(sig os.Signal, signals chan os.Signal) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if sig == syscall.SIGTSTP {
		for _, h := range slices.Backward(s.holders) {
			h.give()
		}
		on := make(chan os.Signal, 1)
		signal.Notify(on, syscall.SIGCONT)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-on
		signal.Stop(on)
		for range len(signals) { // further ones were for the same stop
			<-signals
		}
	}
	for _, h := range s.holders {
		h.take()
	}
}

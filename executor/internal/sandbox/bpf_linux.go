package sandbox

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// instruction is struct sock_filter.
type instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// filterSpec is a system call filter before it is compiled.
type filterSpec struct {
	calls []callRule // by number, each at most once
	other uint32     // SECCOMP_RET_* for numbers without a rule
	above uint32     // for numbers above the last one: ENOSYS, so that programs try the older call
}

// callRule decides about one system call: the first alternative whose
// conditions all hold, else other.
type callRule struct {
	nr    uint32
	alts  []alternative
	other uint32
}

type alternative struct {
	conditions []condition
	action     uint32
}

// condition holds if arg & mask == value, or, with less, if arg < value (below 2^32).
type condition struct {
	arg         int
	mask, value uint64
	less        bool
}

// x32Bit marks the x32 calls of x86-64, which no image uses; they do not exist here.
const x32Bit = 0x40000000

// Offsets in struct seccomp_data, little endian.
const (
	dataNR   = 0
	dataArch = 4
	dataArgs = 16
)

// compile makes one program for several architectures (AUDIT_ARCH_*).
// Anything of another architecture kills the process.
func compile(arches []uint32, specs map[uint32]filterSpec) []instruction {
	out := []instruction{load(dataArch)}
	for _, a := range arches {
		body := specs[a].body()
		out = append(out,
			instruction{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: a, Jt: 1},
			instruction{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(body))})
		out = append(out, body...)
	}
	return append(out, ret(unix.SECCOMP_RET_KILL_PROCESS))
}

func load(offset uint32) instruction {
	return instruction{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(action uint32) instruction {
	return instruction{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// span is a run of numbers with one answer.
type span struct {
	from uint32
	rule *callRule // or
	act  uint32
}

func (f filterSpec) body() []instruction {
	calls := slices.SortedFunc(slices.Values(f.calls), func(a, b callRule) int { return cmp.Compare(a.nr, b.nr) })
	spans := []span{{from: 0, act: f.other}}
	add := func(s span) {
		last := &spans[len(spans)-1]
		switch {
		case last.from == s.from:
			*last = s
			if n := len(spans); n > 1 && spans[n-2].rule == nil && s.rule == nil && spans[n-2].act == s.act {
				spans = spans[:n-1]
			}
		case last.rule == nil && s.rule == nil && last.act == s.act:
		default:
			spans = append(spans, s)
		}
	}
	for i := range calls {
		c := &calls[i]
		if len(c.alts) == 0 {
			add(span{from: c.nr, act: c.other})
		} else {
			add(span{from: c.nr, rule: c})
		}
		add(span{from: c.nr + 1, act: f.other})
	}
	if len(calls) > 0 {
		add(span{from: calls[len(calls)-1].nr + 1, act: f.above})
	}
	return append([]instruction{load(dataNR)}, search(spans)...)
}

// search is a binary search over spans; the number is in the accumulator.
func search(spans []span) []instruction {
	if len(spans) == 1 {
		if spans[0].rule != nil {
			return spans[0].rule.body()
		}
		return []instruction{ret(spans[0].act)}
	}
	mid := len(spans) / 2
	left, right := search(spans[:mid]), search(spans[mid:])
	out := []instruction{
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: spans[mid].from, Jf: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(left))},
	}
	return append(append(out, left...), right...)
}

func (c *callRule) body() []instruction {
	var out []instruction
	for _, a := range c.alts {
		// Each condition that fails jumps over the rest of its alternative.
		rest := []instruction{ret(a.action)}
		for _, cond := range slices.Backward(a.conditions) {
			rest = append(cond.body(uint8(len(rest))), rest...)
		}
		out = append(out, rest...)
	}
	return append(out, ret(c.other))
}

// body falls through if the condition holds and skips the next n instructions if not.
func (c condition) body(n uint8) []instruction {
	low, high := uint32(dataArgs+8*c.arg), uint32(dataArgs+8*c.arg+4)
	if c.less {
		return []instruction{
			load(high),
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: n + 2},
			load(low),
			{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(c.value), Jt: n},
		}
	}
	return []instruction{
		load(high),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: uint32(c.mask >> 32)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(c.value >> 32), Jf: n + 3},
		load(low),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: uint32(c.mask)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(c.value), Jf: n},
	}
}

// errnoAction makes a call fail with errno.
func errnoAction(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno)&0xffff }

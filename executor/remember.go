package executor

// Remember keeps one line, of at most 128 bytes, under a name of the caller's. It is
// kept with what was built last, and may be gone as that may.
func (x *Executor) Remember(name, line string) error {
	return x.store.PutPast("note "+name, line, struct{}{})
}

// Remembered is the line that Remember was given last for a name; "" without one.
func (x *Executor) Remembered(name string) string { return x.store.PastStamp("note " + name) }

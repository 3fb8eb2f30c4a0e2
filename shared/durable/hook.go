package durable

// Step names one thing that a program does to what survives it: one write, sync, rename, removal or commit, after which
// a crash leaves something else than before it. Names are constants of the package that does the step; they begin with
// that package's name and are unique within the program, because the enumeration of crashes counts by them.
type Step string

// Hook is the one seam for faults of the disk and for crashes: it is called before (done is false) and after (done is
// true) each durable step, with the file, directory or certificate that the step is about. An error makes the step fail
// there: before it did anything, or after it has done its work. nil, the only value in production, is no hook and costs
// one comparison. A hook may be called from several goroutines.
type Hook func(step Step, path string, done bool) error

// Around does one step.
func (h Hook) Around(step Step, path string, do func() error) error {
	if h == nil {
		return do()
	}
	if err := h(step, path, false); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return h(step, path, true)
}

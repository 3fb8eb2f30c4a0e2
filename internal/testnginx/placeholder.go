package testnginx

// WritePlaceholder writes a self-signed pair for name, unless one of the files
// is there already: a web server needs a pair before it can start at all.
func WritePlaceholder(name, certificate, key string) error {
	return ensurePair(Site{Name: name, Certificate: certificate, Key: key})
}

// Package managed says what a managed certificate is: its names, its issuer, its
// key, and where it is put into service. The agent's configuration and the
// coordinator's assignments share this vocabulary, its defaults and its rules.
//
// A [Template] is a definition with placeholders, which are filled in for each
// host:
//
//	${hostname}     the host's name, as its agent reports it
//	${label.KEY}    the value of the agent's label KEY
//
// They may stand in names, in the paths of files, and in the address and server
// name of verify; not in commands, whose arguments are never touched.
package managed

import (
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// Certificate says what a managed certificate is, but for its name.
type Certificate struct {
	Names       []string         `yaml:"names" required:"true" min:"1" max:"100" example:"www.example.com" doc:"DNS names and IP addresses that it shall hold."`
	Issuer      string           `yaml:"issuer" default:"coordinator" doc:"Name of one of the issuers; coordinator, for the coordinator's built-in CA; or coordinator/NAME, for the issuer NAME in the coordinator's settings."`
	Fallback    []string         `yaml:"fallback_issuers" max:"8" example:"zerossl,coordinator" doc:"Issuers that stand in, in order, when the issuer refuses, or when it fails and the certificate is at risk. Every renewal begins with the issuer again."`
	Key         pki.KeyAlgorithm `yaml:"key" default:"ecdsa-p256" type:"key algorithm" doc:"Key algorithm: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096 or ed25519."`
	KeyPolicy   KeyPolicy        `yaml:"key_policy" default:"rotate" oneof:"rotate|reuse" doc:"What a renewal does with the key. rotate: makes a new one. reuse: keeps the one in service, for those who pin it (DANE, for example); a key that was revoked, refused or lost, or is of another algorithm, is replaced all the same, and so is that of a renewal that was asked for by hand."`
	Profile     string           `yaml:"profile" default:"" doc:"Certificate profile of the issuer, where it has profiles. Fallback issuers use their default."`
	Lifetime    time.Duration    `yaml:"lifetime" default:"0s" min:"0s" max:"3650d" unit:"d" doc:"Lifetime to ask for, where the authority lets the client choose. 0s: the authority's own."`
	Deployments []Deployment     `yaml:"deployments" max:"100" doc:"Where the certificate is put into service."`
}

// KeyPolicy says what a renewal does with the key in service.
type KeyPolicy string

// Key policies.
const (
	KeyRotate KeyPolicy = "rotate" // each renewal makes a new one
	KeyReuse  KeyPolicy = "reuse"  // it is kept, where it may be used again
)

// Issuers are the names of its issuers in the order in which they are asked.
func (c *Certificate) Issuers() []string { return append([]string{c.Issuer}, c.Fallback...) }

// Deployment is one place where a program reads a certificate.
type Deployment struct {
	ID     string   `yaml:"id" default:"" max:"64" doc:"Its name within the certificate. Empty: its place in the list, such as 1."`
	Files  Files    `yaml:"files" doc:"The files to write."`
	Check  []string `yaml:"check" max:"64" example:"nginx,-t" doc:"Command that checks the program's configuration with the new files in place. A failure puts the old files back."`
	Reload []string `yaml:"reload" max:"64" example:"systemctl,reload,nginx" doc:"Command that makes the program read the files. Commands are run without a shell."`
	Verify *Verify  `yaml:"verify" doc:"Where to connect after the reload to see the new certificate served."`

	CheckTimeout  time.Duration `yaml:"check_timeout" default:"30s" min:"1s" max:"30m" doc:"How long the check may take."`
	ReloadTimeout time.Duration `yaml:"reload_timeout" default:"30s" min:"1s" max:"30m" doc:"How long the reload may take."`
}

// Files are the forms in which a pair is written. All paths are absolute.
type Files struct {
	Certificate string `yaml:"certificate" default:"" doc:"The certificate alone, PEM."`
	Chain       string `yaml:"chain" default:"" doc:"The issuers without the root, PEM."`
	FullChain   string `yaml:"fullchain" default:"" doc:"The certificate, then its issuers, PEM."`
	Key         string `yaml:"key" default:"" doc:"The private key, PKCS#8 PEM."`
	Combined    string `yaml:"combined" default:"" doc:"Key, certificate and issuers in one file, which changes in one step; for HAProxy, and for nginx as both certificate and key."`
	Directory   string `yaml:"directory" default:"" doc:"Directory for fullchain.pem, chain.pem, cert.pem, privkey.pem, switched in one step through a symbolic link. Linux only; not together with the paths above."`

	Owner             string   `yaml:"owner" default:"" doc:"Owner of the files, by name or number. Empty: that of the file that is replaced, or the agent's own. Not for Windows."`
	Group             string   `yaml:"group" default:"" doc:"Group of the files, by name or number. Not for Windows."`
	WindowsAccount    string   `yaml:"windows_account" default:"" doc:"Account that may read the files with a key, beside SYSTEM and the administrators. Windows only."`
	Mode              FileMode `yaml:"mode" default:"keep" type:"file mode" doc:"Mode of files without a key, in octal. keep: that of the file that is replaced, 0644 for a new one."`
	KeyMode           FileMode `yaml:"key_mode" default:"keep" type:"file mode" doc:"Mode of files with a key, in octal; never readable by everybody. keep: that of the file that is replaced, 0600 for a new one."`
	CreateDirectories bool     `yaml:"create_directories" default:"false" doc:"Whether to create missing parent directories."`
}

// Verify is how a deployment is seen on the wire.
type Verify struct {
	Address    string        `yaml:"address" default:"" example:"127.0.0.1:443" doc:"host:port of the program that serves the certificate with TLS."`
	ServerName string        `yaml:"server_name" default:"" doc:"Name to ask for (SNI). Empty: the certificate's first DNS name."`
	Command    []string      `yaml:"command" max:"64" doc:"Command of your own that fails when the new certificate is not in service. It finds its fingerprint in CERTCTL_FINGERPRINT."`
	Patience   time.Duration `yaml:"patience" default:"10s" min:"0s" max:"10m" doc:"How long the new certificate may take to be served after the reload. 0s: the first look decides."`
}

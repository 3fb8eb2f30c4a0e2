package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// MaxNames is the largest number of names that one certificate may carry here. Public CAs stop at 100 too.
	MaxNames = 100

	// maxNameOctets is the longest DNS name in its text form without the final dot (RFC 1035 section 3.1: 255 octets on
	// the wire, two of which the text form does not show).
	maxNameOctets = 253

	// maxLabelOctets is the longest DNS label (RFC 1035 section 2.3.4).
	maxLabelOctets = 63

	// maxNameInput bounds what is handed to the IDNA tables. A U-label takes at most four octets per character.
	maxNameInput = 4 * maxNameOctets
)

// ErrNoNames says that a list of names is empty although at least one name is needed.
var ErrNoNames = errors.New("no names: give at least one DNS name or IP address")

// Names is the set of identities of a certificate: its subjectAltName entries of the types dNSName and iPAddress
// (RFC 5280 section 4.2.1.6). Values made by ParseNames are normalised, sorted and free of duplicates, so that two
// sets are the same exactly if they are Equal. The zero value is the empty set.
type Names struct {
	// DNS holds lower-case A-labels without a final dot, sorted. A name may start with the wildcard label "*".
	DNS []string
	// IPs holds addresses without a zone, IPv4-mapped IPv6 addresses as IPv4, sorted.
	IPs []netip.Addr
}

// ParseNames reads DNS names and IP addresses, in any order, into a normalised set. Names are lower-cased, a final dot
// is removed and international names become A-labels (RFC 5891). It refuses an empty list (ErrNoNames), more than
// MaxNames entries, and any name that a certificate must not or cannot usefully carry; the error quotes the name.
func ParseNames(list []string) (Names, error) {
	if len(list) == 0 {
		return Names{}, ErrNoNames
	}
	if len(list) > MaxNames {
		return Names{}, fmt.Errorf("%d names: one certificate carries at most %d; split them over several certificates", len(list), MaxNames)
	}
	var n Names
	for _, s := range list {
		if addr, err := netip.ParseAddr(s); err == nil {
			addr, err = normalIP(addr)
			if err != nil {
				return Names{}, err
			}
			n.IPs = append(n.IPs, addr)
			continue
		}
		name, err := normalDNS(s)
		if err != nil {
			return Names{}, err
		}
		n.DNS = append(n.DNS, name)
	}
	slices.Sort(n.DNS)
	n.DNS = slices.Compact(n.DNS)
	slices.SortFunc(n.IPs, netip.Addr.Compare)
	n.IPs = slices.Compact(n.IPs)
	return n, nil
}

// CheckNames reports every name of a list that ParseNames would refuse, where that stops at the first. field is what the
// list is called: a name is called by its place in it, such as names[2].
func CheckNames(field string, list []string, report func(field string, err error)) {
	if len(list) > 0 && len(list) <= MaxNames {
		for i, name := range list {
			if _, err := ParseNames([]string{name}); err != nil {
				report(fmt.Sprintf("%s[%d]", field, i), err)
			}
		}
		return
	}
	if _, err := ParseNames(list); err != nil {
		report(field, err)
	}
}

// MustParseNames is ParseNames for names that are written in the program. It panics if they are not valid.
func MustParseNames(list ...string) Names {
	n, err := ParseNames(list)
	if err != nil {
		panic("pki: " + err.Error())
	}
	return n
}

// Strings returns the DNS names and then the addresses, as ParseNames reads them. It never returns nil.
func (n Names) Strings() []string {
	list := make([]string, 0, n.Len())
	list = append(list, n.DNS...)
	for _, ip := range n.IPs {
		list = append(list, ip.String())
	}
	return list
}

// String returns the names separated by ", ".
func (n Names) String() string { return strings.Join(n.Strings(), ", ") }

// Len returns the number of names.
func (n Names) Len() int { return len(n.DNS) + len(n.IPs) }

// IsZero reports whether the set is empty. encoding/json honours it for fields marked omitzero.
func (n Names) IsZero() bool { return n.Len() == 0 }

// Equal reports whether both sets hold the same names.
func (n Names) Equal(other Names) bool {
	return slices.Equal(n.DNS, other.DNS) && slices.Equal(n.IPs, other.IPs)
}

// Contains reports whether every name of other is literally in n. A wildcard is a name like any other here:
// "*.example.com" does not contain "www.example.com".
func (n Names) Contains(other Names) bool { return n.Missing(other).IsZero() }

// Missing returns the names of other that are not literally in n.
func (n Names) Missing(other Names) Names {
	var m Names
	for _, name := range other.DNS {
		if !slices.Contains(n.DNS, name) {
			m.DNS = append(m.DNS, name)
		}
	}
	for _, ip := range other.IPs {
		if !slices.Contains(n.IPs, ip) {
			m.IPs = append(m.IPs, ip)
		}
	}
	return m
}

// MarshalJSON writes the set as a list of strings; the empty set is [].
func (n Names) MarshalJSON() ([]byte, error) { return json.Marshal(n.Strings()) }

// UnmarshalJSON reads a list of strings with the rules of ParseNames, except that the empty list is the empty set: a
// reader that needs a name checks IsZero. Anything that is not a list of strings, null included, is an error.
func (n *Names) UnmarshalJSON(data []byte) error {
	var list []*string
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("names: want a list of strings: %w", err)
	}
	if list == nil {
		return errors.New("names: want a list of strings, not null")
	}
	if len(list) == 0 {
		*n = Names{}
		return nil
	}
	plain := make([]string, len(list))
	for i, s := range list {
		if s == nil {
			return fmt.Errorf("names: entry %d is null; want a string", i)
		}
		plain[i] = *s
	}
	parsed, err := ParseNames(plain)
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	*n = parsed
	return nil
}

func normalIP(addr netip.Addr) (netip.Addr, error) {
	if addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q: a certificate cannot carry a zone; leave out %q", addr, "%"+addr.Zone())
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("address %q: no host answers at an unspecified or multicast address; name the address that clients connect to", addr)
	}
	return addr, nil
}

// nameProfile maps a name as a resolver would look it up (UTS #46, non-transitional as in RFC 5891). Hyphens are not
// checked by the profile because real names carry them in the third and fourth place ("r3---sn-x"); checkLabel does the
// rest.
var nameProfile = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.BidiRule(),
	idna.CheckJoiners(true),
	idna.CheckHyphens(false),
	idna.StrictDomainName(true),
)

// normalDNS returns s as the dNSName that a certificate carries, wildcard label included.
func normalDNS(s string) (string, error) {
	base, wildcard := strings.CutPrefix(s, "*.")
	name, err := normalBase(s, base)
	if err != nil {
		return "", err
	}
	if !wildcard {
		return name, nil
	}
	// TLS stacks in wide use ignore a wildcard directly beneath a top-level domain, so such a certificate would be
	// issued and never accepted.
	if !strings.Contains(name, ".") {
		return "", fmt.Errorf("name %q: clients refuse a wildcard with fewer than two labels after it; name the hosts", clip(s))
	}
	if len(name)+2 > maxNameOctets {
		return "", fmt.Errorf("name %q: longer than %d octets", clip(s), maxNameOctets)
	}
	return "*." + name, nil
}

// normalBase normalises the DNS name base, which holds no wildcard. whole is what the user wrote, for the error.
func normalBase(whole, base string) (string, error) {
	if whole == "" || base == "" {
		return "", fmt.Errorf("name %q: empty; remove it or write a DNS name or IP address", clip(whole))
	}
	if len(base) > maxNameInput {
		return "", fmt.Errorf("name %q: longer than %d octets", clip(whole), maxNameOctets)
	}
	if strings.Contains(base, "*") {
		return "", fmt.Errorf("name %q: a wildcard must be the whole left-most label, as in \"*.example.com\"", clip(whole))
	}
	if !utf8.ValidString(base) {
		return "", fmt.Errorf("name %q: is not UTF-8 text", clip(whole))
	}
	name, err := nameProfile.ToASCII(strings.TrimSuffix(base, "."))
	if err == nil && !isASCII(base) {
		// An A-label is only as good as the U-label inside it; ToASCII alone does not decode what it made.
		_, err = nameProfile.ToASCII(name)
	}
	if err != nil {
		return "", fmt.Errorf("name %q: not a valid host name (letters, digits and hyphens in labels separated by dots): %w", clip(whole), err)
	}
	if len(name) > maxNameOctets {
		return "", fmt.Errorf("name %q: longer than %d octets", clip(whole), maxNameOctets)
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("name %q: %w", clip(whole), err)
		}
		last = label
	}
	// Resolvers read a name that ends in a number as an IPv4 address in one of its many old spellings, so the
	// certificate would be for another thing than what clients connect to.
	if endsInNumber(last) {
		return "", fmt.Errorf("name %q: looks like an IP address but is none; write the address in full, as 192.0.2.1 or 2001:db8::1", clip(whole))
	}
	return name, nil
}

// checkLabel enforces the preferred name syntax, which RFC 5280 section 4.2.1.6 demands of a dNSName: letters, digits
// and inner hyphens. Underscores are outside it and public CAs refuse them.
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("has an empty label; remove the extra dot")
	case len(label) > maxLabelOctets:
		return fmt.Errorf("label %q is longer than %d octets", clip(label), maxLabelOctets)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q starts or ends with a hyphen", label)
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("label %q holds %q; only letters, digits and hyphens are allowed", label, c)
		}
	}
	return nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

func endsInNumber(label string) bool {
	digits, isHex := strings.CutPrefix(label, "0x")
	for _, c := range []byte(digits) {
		decimal := c >= '0' && c <= '9'
		if !decimal && (!isHex || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// clip bounds what an error repeats of input from outside.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

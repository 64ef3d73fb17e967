<?php
// Reads lines: `q` and the hex digits of a query, `u` and those of a command of
// a batch, which a portal takes for an address, or `j` and those of a JSON
// document. Answers each with what PHP makes of it: a word for each value that
// is no array, and for each empty array, made of the hex digits of its keys,
// its type and its own digits; `-` when PHP reads nothing.
ini_set('display_errors', '0');

function scalar($value) {
    return match (true) {
        $value === null => 'n',
        is_bool($value) => $value ? 'b1' : 'b0',
        is_int($value) => 'i' . $value,
        is_float($value) => 'f' . bin2hex(strrev(pack('d', $value))),
        default => 's' . bin2hex($value),
    };
}

function show($value, $path, &$words) {
    if (!is_array($value) || $value === []) {
        $words[] = $path . '=' . (is_array($value) ? 'a' : scalar($value));
        return;
    }
    foreach ($value as $key => $entry) {
        show($entry, $path . '/' . bin2hex((string)$key), $words);
    }
}

while (($line = fgets(STDIN)) !== false) {
    $text = hex2bin(substr(trim($line), 1));
    $parsed = [];
    if ($line[0] === 'q') {
        @parse_str($text, $parsed);
    } elseif ($line[0] === 'u') {
        $parts = parse_url($text);
        @parse_str($parts['query'] ?? '', $parsed);
        $parsed = array_keys($parts + ['query' => '']) === ['path', 'query'] && $parts['path'] === 'crm.lead.add' ? $parsed : ['torn' => '1'];
    } else {
        $parsed = json_decode($text, true);
    }
    $words = [];
    if ($line[0] !== 'j' || json_last_error() === JSON_ERROR_NONE) {
        show($parsed, '', $words);
    }
    echo $words === [] ? '-' : implode(' ', $words), "\n";
}

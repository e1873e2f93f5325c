/* What executing any program costs: a static binary that does nothing. The floor of every invocation of the plugin. */
int main(void) { return 0; }
